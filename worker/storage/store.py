"""Where overlays go, and how they are fetched. Imports neither torch nor cv2: clients use it too."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Protocol, Tuple
from urllib.parse import quote, unquote, urlsplit

import redis

from worker.errors import SettingsError, StorageUnavailable
from worker.servers import connect, is_redis

#: Seconds after which a store that does not answer counts as down.
_TIMEOUT_S = 10.0
#: In a result, an overlay in the result backend's own Redis: it holds no host and no password.
_REDIS_URL = "redis:///"
#: Ends the name of a file that is being written, and seconds after which nobody writes it any more.
_PART = ".part"
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class StoredObject:
    """What was stored: where, what, how much, and until when (Unix time in seconds; None: for ever)."""

    url: str
    media_type: str
    bytes: int
    sha256: str
    expires_at: Optional[float]


class Store(Protocol):
    """Keeps objects whole or not at all. Every method raises StorageUnavailable if the store does not answer."""

    def put(self, key: str, data: bytes, *, media_type: str, ttl_s: int) -> StoredObject:
        """Keep `data` under `key` for `ttl_s` seconds; the same key is replaced."""

    def get(self, key: str) -> bytes:
        """The bytes under `key`."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens if it is not there."""

    def close(self) -> None:
        """Close its connections; using it again opens them again."""


class RedisStore:
    """Objects as Redis strings with an expiry."""

    def __init__(self, url: str, prefix: str = "") -> None:
        self._prefix = prefix and f"{prefix}:"
        self._client = connect(url, _TIMEOUT_S)

    def put(self, key: str, data: bytes, *, media_type: str, ttl_s: int) -> StoredObject:
        """See :class:`Store`."""
        name = self._prefix + checked_key(key)
        with _outages("the overlay store (Redis)"):
            self._client.set(name, data, ex=ttl_s)
        return stored_object(_REDIS_URL + quote(name), data, media_type, ttl_s)

    def get(self, key: str) -> bytes:
        """See :class:`Store`."""
        with _outages("the overlay store (Redis)"):
            data = self._client.get(self._prefix + checked_key(key))
        if data is None:
            raise StorageUnavailable(f"There is no overlay {key!r}; it may have expired.")
        return data if isinstance(data, bytes) else data.encode()

    def delete(self, key: str) -> None:
        """See :class:`Store`."""
        with _outages("the overlay store (Redis)"):
            self._client.delete(self._prefix + checked_key(key))

    def close(self) -> None:
        """See :class:`Store`."""
        self._client.close()


class FileStore:
    """Objects as files below one folder; the file's time of change is its expiry, for :meth:`sweep`."""

    def __init__(self, url: str, prefix: str = "") -> None:
        self._folder = Path(unquote(urlsplit(url).path)) / prefix

    def put(self, key: str, data: bytes, *, media_type: str, ttl_s: int) -> StoredObject:
        """See :class:`Store`."""
        target = self._folder / checked_key(key)
        # Two that do one job at once, on two hosts, may have the same process id.
        part = target.with_name(f".{target.name}.{secrets.token_hex(6)}{_PART}")
        stored = stored_object(target.absolute().as_uri(), data, media_type, ttl_s)
        with _outages(f"the overlay store {self._folder}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.utime(part, (stored.expires_at or 0, stored.expires_at or 0))
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        return stored

    def get(self, key: str) -> bytes:
        """See :class:`Store`."""
        with _outages(f"the overlay store {self._folder}"):
            return (self._folder / checked_key(key)).read_bytes()

    def delete(self, key: str) -> None:
        """See :class:`Store`."""
        with _outages(f"the overlay store {self._folder}"):
            (self._folder / checked_key(key)).unlink(missing_ok=True)

    def close(self) -> None:
        """See :class:`Store`."""

    def sweep(self) -> int:
        """Remove what has expired; returns how many files."""
        removed = 0
        with _outages(f"the overlay store {self._folder}"):
            for path in self._folder.rglob("*"):
                with suppress(FileNotFoundError):  # another sweeper was faster
                    removed += self._sweep_one(path)
        return removed

    def _sweep_one(self, path: Path) -> bool:
        # What is being written has this moment as its time; it stays unless whoever wrote it was killed long ago.
        spare_s = _ABANDONED_S if path.name.endswith(_PART) else 0.0
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_mtime + spare_s >= time.time():
            return False
        path.unlink()
        return True


def open_store(url: str, prefix: str = "") -> Store:
    """The store at `url`: a Redis (see worker.servers), ``file:///folder`` or ``s3://bucket/prefix``.

    Raises:
        SettingsError: the URL is of another kind.
    """
    scheme = urlsplit(url).scheme
    if is_redis(url):
        return RedisStore(url, prefix)
    if scheme == "file":
        return FileStore(url, prefix)
    if scheme == "s3" and urlsplit(url).netloc:
        return _s3_store(url, prefix)
    raise SettingsError(
        f"The overlay store cannot be {scheme or url!r}; set POSE_OVERLAY_STORE to redis://, file:// or s3://."
    )


def fetch(url: str, home: Store) -> bytes:
    """The overlay at `url`, as a result names it.

    Args:
        home: the store in the result backend, where ``redis:///…`` is looked up.

    Raises:
        StorageUnavailable: the store does not answer, or the overlay has expired.
    """
    store, key = _find(url, home)
    return store.get(key)


def delete(url: str, home: Store) -> None:
    """Remove the overlay at `url`; see :func:`fetch`."""
    store, key = _find(url, home)
    store.delete(key)


def _s3_store(url: str, prefix: str = "") -> Store:
    from worker.storage.s3_store import S3Store  # s3fs is there only where it is wanted

    return S3Store(url, prefix)


def _find(url: str, home: Store) -> Tuple[Store, str]:
    if url.startswith(_REDIS_URL):
        return home, unquote(url[len(_REDIS_URL) :])
    if url.startswith("s3://"):
        folder, _, key = url.rpartition("/")
        return _s3_store(folder), key
    path = Path(unquote(urlsplit(url).path))
    return FileStore(path.parent.as_uri()), path.name


def checked_key(key: str) -> str:
    """`key`, if it stays below its store; raises ValueError."""
    parts = key.split("/")
    if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"not a key: {key!r}")
    return key


def stored_object(url: str, data: bytes, media_type: str, ttl_s: Optional[int]) -> StoredObject:
    """What there is to say of `data` that was stored at `url`."""
    expires_at = None if ttl_s is None else round(time.time() + ttl_s, 3)
    return StoredObject(url, media_type, len(data), hashlib.sha256(data).hexdigest(), expires_at)


@contextmanager
def _outages(title: str) -> Iterator[None]:
    """Translate what goes wrong in a store into StorageUnavailable."""
    try:
        yield
    except (redis.RedisError, OSError) as exc:
        raise StorageUnavailable(
            f"{title[0].upper()}{title[1:]} failed ({exc}); check that it is up and not full."
        ) from exc


__all__ = [
    "FileStore",
    "RedisStore",
    "Store",
    "StoredObject",
    "checked_key",
    "delete",
    "fetch",
    "open_store",
    "stored_object",
]
