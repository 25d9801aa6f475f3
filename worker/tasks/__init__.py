"""Celery's tasks: what is done with a message, from its arguments to the outcome."""
