"""Films: what a film is, which of its frames are looked at, and their pixels. PyAV is used in this room alone."""
