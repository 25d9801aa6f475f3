"""Films and their segments: what a film is, which of its frames are looked at, and their pixels. PyAV is used only here."""
