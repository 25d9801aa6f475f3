"""Overlays as files. They do not expire by themselves: see :mod:`worker.storage.sweeper`."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from worker.contract import Overlay
from worker.files import PART, replacing
from worker.storage.store import checked_key, described, outages

#: Seconds after which nobody writes a file any more that is still marked as being written.
_ABANDONED_S = 3600.0


class FileStore:
    """Objects as files below one folder; the file's time of change is its expiry, for :meth:`sweep`."""

    def __init__(self, url: str, prefix: str = "") -> None:
        self._folder = Path(unquote(urlsplit(url).path)) / prefix
        self._outages = partial(outages, str(self._folder))

    def url(self, key: str) -> str:
        """See :class:`worker.storage.store.Store`."""
        return (self._folder / checked_key(key)).absolute().as_uri()

    def put(self, key: str, data: bytes, *, media_type: str, ttl_s: int) -> Overlay:
        """See :class:`worker.storage.store.Store`."""
        target = self._folder / checked_key(key)
        stored = described(self.url(key), data, media_type, ttl_s)
        with self._outages(), replacing(target, durable=True) as file:
            file.write(data)
            file.flush()  # a later write would change the time
            os.utime(file.fileno(), (stored.expires_at or 0, stored.expires_at or 0))
        return stored

    def get(self, key: str, most: int) -> bytes:
        """See :class:`worker.storage.store.Store`; a link is not followed, below the store's own folder."""
        path = self._folder / checked_key(key)
        with self._outages():
            if path.parent.resolve() != self._folder.resolve() / Path(key).parent:
                raise OSError(f"{path} is behind a link")
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(handle, "rb") as file:  # noqa: PTH123 - opened without following a link, or waiting at a pipe
                return file.read(most + 1)

    def delete(self, key: str) -> None:
        """See :class:`worker.storage.store.Store`."""
        with self._outages():
            (self._folder / checked_key(key)).unlink(missing_ok=True)

    def close(self) -> None:
        """See :class:`worker.storage.store.Store`."""

    def sweep(self) -> int:
        """Remove what has expired; returns how many files."""
        removed = 0
        with self._outages():
            for path in self._folder.rglob("*"):
                with suppress(FileNotFoundError):  # another sweeper was faster
                    removed += self._sweep_one(path)
        return removed

    def _sweep_one(self, path: Path) -> bool:
        # A file that is being written has its time of change, not of expiry: it stays, unless its writer died long ago.
        spare_s = _ABANDONED_S if path.name.endswith(PART) else 0.0
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_mtime + spare_s >= time.time():
            return False
        path.unlink()
        return True
