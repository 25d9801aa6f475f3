"""Messages that were refused: what arrived, when, on which queue, and why; kept in Redis until someone looks.

``<prefix>:refused`` is a list, the newest first, of at most MOST entries. A refused message whose id nobody else has
used ends as ``InvalidRequest`` under that id, too, so that whoever sent it is told.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from functools import lru_cache
from typing import Any, Dict, List, Optional, Union

import redis

from worker.errors import InvalidRequest
from worker.jobs.attempt import ledger
from worker.servers import DEFAULT_URL, connect
from worker.settings import settings

logger = logging.getLogger(__name__)

#: Entries that are kept; older ones make room.
MOST = 1000
#: Characters of a message that are kept.
_SHOWN = 2000


class Refused:
    """The refused messages of one deployment. Every method raises redis.RedisError if Redis does not answer.

    Args:
        client: of the result backend's Redis.
        prefix: as POSE_KEY_PREFIX.
        keep_s: seconds for which the list is kept after its newest entry.
    """

    def __init__(self, client: redis.Redis, prefix: str, keep_s: int) -> None:
        self._client, self._key, self._keep_s = client, f"{prefix}:refused", keep_s

    def add(self, why: str, message: Any, *, queue: str, worker: str, job_id: Optional[str] = None) -> None:
        """Keep `message`, of which the beginning is enough, and `why` it was refused."""
        size = len(message) if isinstance(message, (bytes, str)) else None
        shown = message[:_SHOWN] if size is not None else message
        entry = {
            "time": round(time.time(), 3),
            "worker": worker,
            "queue": queue,
            "job_id": job_id,
            "why": why,
            "bytes": size,
            "message": ascii(shown)[:_SHOWN],
        }
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


@lru_cache(maxsize=1)
def refused_messages() -> Refused:
    """Those of this deployment, with a connection of their own."""
    url = settings().results_url or DEFAULT_URL
    return Refused(connect(url, 5.0), settings().key_prefix, settings().dead_keep_s)


def refuse(why: str, message: Any, *, queue: str, backend: Any, job_id: Optional[str] = None) -> None:
    """Say that `message` is not done, keep it, and end the job `job_id` with `why` unless it is somebody else's.

    Args:
        backend: Celery's result backend.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    logger.error("✗ A message on %r was refused: %s See: python -m worker refused list", queue, why)
    worker = f"{socket.gethostname()}:{os.getpid()}"
    refused_messages().add(why, message, queue=queue, worker=worker, job_id=job_id)
    # A record means that a proper message of this id was or will be there; a stranger's must not end that job.
    if job_id is not None and ledger().state(job_id) is None:
        backend.mark_as_failure(job_id, InvalidRequest(why))
