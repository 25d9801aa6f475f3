"""Nobody waits in silence: what to say while a job does not end, and why it has not ended."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Callable, Optional, Protocol

import redis

from worker.client.status import JobStatus
from worker.errors import PoseError
from worker.servers import no_worker

logger = logging.getLogger(__name__)

#: Seconds without an end after which it is looked whether there is a worker at all.
SILENT_S = 5.0


class _Client(Protocol):
    """What is asked of a client, which is a :class:`worker.client.PoseClient`."""

    broker_url: str

    def status(self, job_id: str) -> JobStatus: ...
    def unserved(self) -> Optional[str]: ...


def why_not_ended(client: _Client, job_id: str) -> str:
    """Where a job is that has not ended, as far as this client's user may know."""
    with contextlib.suppress(PoseError, redis.RedisError):
        status = client.status(job_id)
        return str(status) if status.served else f"{status} {no_worker(status.queue, client.broker_url)}"
    return ""


def warn(client: _Client, job_id: str) -> None:
    """Say so in the log if no worker takes jobs from the queue that a job waits in."""
    with contextlib.suppress(PoseError, redis.RedisError):
        status = client.status(job_id)
        if not status.served:
            logger.warning("%s", no_worker(status.queue, client.broker_url))


class Silence:
    """Says, once, that no worker takes jobs, if after some seconds there is none; by `say`."""

    def __init__(self, client: _Client, say: Callable[[str], None]) -> None:
        self._client, self._say, self._next, self._said = client, say, time.monotonic() + SILENT_S, False

    def look(self) -> None:
        """To be called while no job ends."""
        if self._said or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SILENT_S
        sentence = self._client.unserved()
        if sentence:
            self._said = True
            self._say(sentence)


__all__ = ["SILENT_S", "Silence", "warn", "why_not_ended"]
