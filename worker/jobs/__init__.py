"""A job is a record, not only a message."""
