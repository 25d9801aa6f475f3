"""Reading a protobuf file that someone else wrote."""

from __future__ import annotations

from pathlib import Path

from worker.engine.netdef import MAX_BYTES
from worker.errors import ModelError


def read_source(path: Path) -> bytes:
    """The bytes of the file at `path`.

    Raises:
        ModelError: it cannot be read, or is larger than a protobuf can be, which is told before anything is read.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than {MAX_BYTES} bytes, which no protobuf can be; fetch it again.")
        return path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path} cannot be read ({exc.strerror}); check the path.") from exc
