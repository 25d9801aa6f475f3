"""S3: images in it, and overlays as objects, which the bucket's own lifecycle rule removes.

Where it is, and with which rights, is read from the environment, as by all of Amazon's tools:

``AWS_ENDPOINT_URL`` (for MinIO, Ceph and others), ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_DEFAULT_REGION``, profiles, roles. Needs s3fs: ``pip install -r deploy/requirements-s3.txt``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Iterator, Tuple, Type

from worker.contract import Overlay
from worker.errors import SettingsError, StorageUnavailable
from worker.storage.store import checked_key, described, outages

#: Seconds within which a connection must be made; one that stands must go on within the other.
_CONNECT_S, _READ_S = 5, 20


def check() -> None:
    """Raises SettingsError if s3fs is not installed; loads nothing."""
    if importlib.util.find_spec("s3fs") is None:
        raise SettingsError("s3:// needs s3fs, which is not installed; run: pip install -r deploy/requirements-s3.txt")


def filesystem() -> Any:
    """This process's way to S3; it connects when it is used.

    Raises:
        SettingsError: s3fs is not installed.
    """
    check()
    return _filesystem(os.getpid())


@lru_cache(maxsize=1)
def _filesystem(process: int) -> Any:
    """That of a process; it must not be used across a fork, for it has a thread."""
    from s3fs import S3FileSystem

    # Jobs are tried again with a longer pause than any of its own attempts would make.
    limits = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": {"max_attempts": 1}}
    return S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=limits)


def errors() -> Tuple[Type[BaseException], ...]:
    """What its methods raise when something is wrong with S3, beside FileNotFoundError and PermissionError."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, asyncio.TimeoutError, BotoCoreError, ClientError)


def forget() -> None:
    """Have the environment read again."""
    _filesystem.cache_clear()


def split(url: str) -> Tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; a key may hold any character, ``?`` and ``%`` too.

    Raises:
        ValueError: there is no bucket, or the key has a part that is empty, ``.`` or ``..``.
    """
    bucket, _, key = url[len("s3://") :].partition("/")
    if not bucket or any(part in ("", ".", "..") for part in key.rstrip("/").split("/") if key):
        raise ValueError(f"{url} is not s3://bucket/key")
    return bucket, key


class S3Store:
    """Objects below ``s3://bucket/prefix``; S3 shows an object whole or not at all.

    Raises:
        SettingsError: s3fs is not installed.
        ValueError: the URL names no bucket.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        bucket, key = split(url)
        self._root = "/".join(part for part in (bucket, key.strip("/"), prefix) if part)
        self._files = filesystem()

    def url(self, key: str) -> str:
        """See :class:`worker.storage.store.Store`."""
        return f"s3://{self._root}/{checked_key(key)}"

    def put(self, key: str, data: bytes, *, media_type: str, ttl_s: int) -> Overlay:
        """See :class:`worker.storage.store.Store`; `ttl_s` is left to the bucket."""
        with self._outages():
            self._files.pipe_file(self.url(key), data, ContentType=media_type)
        return described(self.url(key), data, media_type, None)

    def get(self, key: str, most: int) -> bytes:
        """See :class:`worker.storage.store.Store`."""
        with self._outages():
            data: bytes = self._files.cat_file(self.url(key), start=0, end=most + 1)
        return data

    def delete(self, key: str) -> None:
        """See :class:`worker.storage.store.Store`."""
        with self._outages():
            self._files.rm_file(self.url(key))

    def close(self) -> None:
        """See :class:`worker.storage.store.Store`."""

    @contextmanager
    def _outages(self) -> Iterator[None]:
        with outages(f"s3://{self._root}", errors()):
            try:
                yield
            except FileNotFoundError as exc:
                raise StorageUnavailable(f"There is no such overlay or bucket ({exc}); it may have expired.") from exc
