"""Formats that a net may come in; the file of each has ``convert(path, entry) -> NetPairBuilder``."""
