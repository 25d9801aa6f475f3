"""Overlays as strings in Redis."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from redis import RedisError

from worker.contract import Overlay
from worker.errors import StorageUnavailable
from worker.servers import connect
from worker.storage.store import checked_key, described, outages

#: In a result, the beginning of the URL of an overlay in Redis: no host and no password.
URL = "redis:///"
#: Seconds after which a store that does not answer counts as down.
_TIMEOUT_S = 10.0
_outages = partial(outages, "(Redis)", (RedisError, OSError))


class RedisStore:
    """Objects as Redis strings with an expiry."""

    def __init__(self, url: str, prefix: str = "") -> None:
        self._prefix = prefix and f"{prefix}:"
        self._client = connect(url, _TIMEOUT_S)

    def url(self, key: str) -> str:
        """See :class:`worker.storage.store.Store`."""
        return URL + quote(self._prefix + checked_key(key))

    def put(self, key: str, data: bytes, *, media_type: str, ttl_s: int) -> Overlay:
        """See :class:`worker.storage.store.Store`."""
        name = self._prefix + checked_key(key)
        with _outages():
            self._client.set(name, data, ex=ttl_s)
        return described(self.url(key), data, media_type, ttl_s)

    def get(self, key: str, most: int) -> bytes:
        """See :class:`worker.storage.store.Store`."""
        with _outages():
            data = self._client.getrange(self._prefix + checked_key(key), 0, most)
        if not data:
            raise StorageUnavailable(f"There is no overlay {key!r}; it may have expired.")
        return data if isinstance(data, bytes) else data.encode()

    def delete(self, key: str) -> None:
        """See :class:`worker.storage.store.Store`."""
        with _outages():
            self._client.delete(self._prefix + checked_key(key))

    def close(self) -> None:
        """See :class:`worker.storage.store.Store`."""
        self._client.close()
