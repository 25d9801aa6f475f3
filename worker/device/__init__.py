"""The device a worker owns, and the net on it."""
