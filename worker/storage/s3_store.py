"""Overlays as objects in S3. How long they are kept is the bucket's own lifecycle rule."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

from worker.errors import StorageUnavailable
from worker.storage import s3
from worker.storage.store import StoredObject, checked_key, stored_object


class S3Store:
    """Objects below ``s3://bucket/prefix``; S3 shows an object whole or not at all.

    Raises:
        SettingsError: s3fs is not installed.
        ValueError: the URL names no bucket.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        bucket, key = s3.split(url)
        self._root = "/".join(part for part in (bucket, key.strip("/"), prefix) if part)
        self._files = s3.filesystem()

    def put(self, key: str, data: bytes, *, media_type: str, ttl_s: int) -> StoredObject:
        """See :class:`worker.storage.store.Store`; `ttl_s` is left to the bucket."""
        path = f"{self._root}/{checked_key(key)}"
        with self._outages():
            self._files.pipe_file(path, data, ContentType=media_type)
        return stored_object(f"s3://{path}", data, media_type, None)

    def get(self, key: str) -> bytes:
        """See :class:`worker.storage.store.Store`."""
        with self._outages():
            data: bytes = self._files.cat_file(f"{self._root}/{checked_key(key)}")
        return data

    def delete(self, key: str) -> None:
        """See :class:`worker.storage.store.Store`."""
        with self._outages():
            self._files.rm_file(f"{self._root}/{checked_key(key)}")

    def close(self) -> None:
        """See :class:`worker.storage.store.Store`."""

    @contextmanager
    def _outages(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as exc:
            raise StorageUnavailable(f"There is no such overlay or bucket ({exc}); it may have expired.") from exc
        except s3.errors() as exc:
            raise StorageUnavailable(
                f"The overlay store s3://{self._root} failed ({exc}); check that it is up and may be written to."
            ) from exc


__all__ = ["S3Store"]
