"""Messages that were refused: what arrived, when, on which queue, and why; kept in Redis until someone looks."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any, Dict, List, Optional, Union

import redis

from worker.servers import DEFAULT_URL, Keys, connect
from worker.settings import Settings

#: Entries that are kept; older ones make room.
MOST = 1000
#: Characters of a message that are kept.
_SHOWN = 2000
#: Seconds within which Redis must answer.
_TIMEOUT_S = 5.0


class Refused:
    """The refused messages of one deployment, the newest first. Every method raises redis.RedisError if Redis does not
    answer.

    Args:
        client: of the result backend's Redis.
        prefix: as POSE_KEY_PREFIX.
        keep_s: seconds for which the list is kept after its newest entry.
    """

    def __init__(self, client: redis.Redis, prefix: str, keep_s: int) -> None:
        self._client, self._key, self._keep_s = client, Keys(prefix).ours("refused"), keep_s

    @classmethod
    def of(cls, settings: Settings) -> Refused:
        """Those of the deployment of `settings`, with connections of their own."""
        return cls(connect(settings.results_url or DEFAULT_URL, _TIMEOUT_S), settings.key_prefix, settings.dead_keep_s)

    def add(
        self, why: str, message: Any, *, queue: str, job_id: Optional[str] = None, size: Optional[int] = None
    ) -> None:
        """Keep `message`, of which the beginning is enough, and `why` it was refused.

        Args:
            size: its size in bytes, if more than `message` has arrived.
        """
        text = isinstance(message, (bytes, str))
        entry = {
            "time": round(time.time(), 3),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "queue": queue,
            "job_id": job_id,
            "why": why,
            "bytes": size or (len(message) if text else None),
            "message": ascii(message[:_SHOWN] if text else message)[:_SHOWN],
        }
        if self._client.type(self._key) not in (b"list", b"none"):  # a stranger's
            self._client.delete(self._key)
        with self._client.pipeline() as pipe:
            pipe.lpush(self._key, json.dumps(entry))
            pipe.expire(self._key, self._keep_s)
            kept = pipe.execute()[0]
        if kept > MOST:
            self._client.rpop(self._key, kept - MOST)

    def list(self, most: int = MOST) -> List[Dict[str, Any]]:
        """The entries, the newest first."""
        return [_entry(text) for text in self._client.lrange(self._key, 0, most - 1)]

    def purge(self) -> int:
        """Remove all entries; returns how many there were."""
        with self._client.pipeline() as pipe:
            pipe.llen(self._key)
            pipe.delete(self._key)
            return int(pipe.execute()[0])


def _entry(text: Union[bytes, str]) -> Dict[str, Any]:
    """What was kept; of what makes no sense, as much as can be shown."""
    entry: Dict[str, Any] = {"time": 0.0, "worker": "", "queue": "?", "job_id": None, "why": "?", "bytes": None}
    try:
        return {**entry, "message": "", **json.loads(text)}
    except (ValueError, TypeError):
        return {**entry, "why": "What was kept here is no entry.", "message": ascii(text)[:_SHOWN]}
