"""Files that are written whole or not at all, and names made fit to be shown."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator

#: Ends the name of a file that is being written.
PART = ".part"


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the context ends, and is removed if it ends in an error.

    Its name begins with a dot and is drawn at random: two hosts that write one path at once do not meet.

    Args:
        durable: whether what was written must survive a loss of power from then on.

    Raises:
        OSError: as of any file; `path` is then as it was.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}{PART}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Have `path` hold `data`; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(data)


def printable(text: str) -> str:
    """`text`, a path or a sentence about one, for people to read.

    Whatever a terminal, a page or a log would not show as it is becomes an escape: line ends, marks that turn the
    direction of writing, undecodable bytes.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
