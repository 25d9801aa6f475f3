"""What stands between Celery and us; the only room that names private parts of Celery, kombu, billiard and redis-py."""
