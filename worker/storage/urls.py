"""Stores by their URLs, and overlays by theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple
from urllib.parse import unquote, urlsplit

from worker.errors import SettingsError
from worker.servers import is_redis
from worker.storage.file import FileStore
from worker.storage.redis import URL as REDIS_URL
from worker.storage.redis import RedisStore
from worker.storage.s3 import S3Store
from worker.storage.store import Store


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
        return S3Store(url, prefix)
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


def _find(url: str, home: Store) -> Tuple[Store, str]:
    if url.startswith(REDIS_URL):
        return home, unquote(url[len(REDIS_URL) :])
    if url.startswith("s3://"):
        folder, _, key = url.rpartition("/")
        return S3Store(folder), key
    path = Path(unquote(urlsplit(url).path))
    return FileStore(path.parent.as_uri()), path.name
