"""One file for each format that a net may come in; each has ``convert(path, entry) -> NetPairBuilder``."""
