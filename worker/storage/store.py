"""What a store of overlays is. Imports neither torch nor cv2: clients use it too."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from typing import Iterator, Optional, Protocol, Tuple, Type

from worker.contract import Overlay
from worker.errors import StorageUnavailable


class Store(Protocol):
    """Keeps objects whole or not at all. What asks the store raises StorageUnavailable if it does not answer."""

    def url(self, key: str) -> str:
        """Where `key` is, as results have it; nothing is asked. Raises ValueError if `key` leaves the store."""

    def put(self, key: str, data: bytes, *, media_type: str, ttl_s: int) -> Overlay:
        """Keep `data` under `key` for `ttl_s` seconds; the same key is replaced."""

    def get(self, key: str, most: int) -> bytes:
        """The bytes under `key`; of more than `most`, only one more."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens if it is not there."""

    def close(self) -> None:
        """Close its connections; using it again opens them again."""


def checked_key(key: str) -> str:
    """`key`, if it stays below its store; raises ValueError."""
    parts = key.split("/")
    if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"not a key: {key!r}")
    return key


def described(url: str, data: bytes, media_type: str, ttl_s: Optional[int]) -> Overlay:
    """The description of `data` that was stored at `url`."""
    expires_at = None if ttl_s is None else round(time.time() + ttl_s, 3)
    digest = hashlib.sha256(data).hexdigest()
    return Overlay(url=url, media_type=media_type, bytes=len(data), sha256=digest, expires_at=expires_at)


@contextmanager
def outages(title: str, errors: Tuple[Type[BaseException], ...] = (OSError,)) -> Iterator[None]:
    """Turn `errors` of a store, which `title` names, into StorageUnavailable."""
    try:
        yield
    except errors as exc:
        raise StorageUnavailable(
            f"The overlay store {title} failed ({exc}); check that it is up and not full."
        ) from exc
