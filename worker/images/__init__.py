"""A path or URL in, pixels out."""
