"""S3 by fsspec: where it is and who may come is told by the environment that all of Amazon's tools read.

``AWS_ENDPOINT_URL`` (for MinIO, Ceph and others), ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_DEFAULT_REGION``, profiles, roles. Needs s3fs: ``pip install -r deploy/requirements-s3.txt``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from functools import lru_cache
from typing import Any, Tuple, Type

from worker.errors import SettingsError

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
