"""Generated protobuf classes; the ``.proto`` files beside them say what is taken over from which format."""
