"""One process at a time fetches or converts a net."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Iterator


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock called `name` in `folder`; waits for another process that has it, however that one ends."""
    folder.mkdir(parents=True, exist_ok=True)
    # The lock file stays: removing it would let two processes lock two files of the same name.
    handle = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
