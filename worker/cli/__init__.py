"""The commands of ``python -m worker``."""
