"""What waits on the queues, and for how long: looked at now and then, in the worker's parent."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from kombu import Connection

from worker.servers import DEFAULT_URL, celery_server, connect, is_redis, queue
from worker.settings import Settings

#: Celery's priorities; each but the first has a list of its own in Redis, named with kombu's separator.
_PRIORITIES = range(10)
_SEPARATOR = "\x06\x16"
_TIMEOUT_S = 2.0


@dataclass
class Seen:
    """What one look has found.

    Attributes:
        depth: messages that wait, by queue.
        oldest_s: age of the oldest of them in seconds, by queue; where the broker is Redis.
        jobs: jobs ``running`` and waiting for another attempt (``later``), by the ledger.
        dead: dead letters.
    """

    depth: Dict[str, int] = field(default_factory=dict)
    oldest_s: Dict[str, float] = field(default_factory=dict)
    jobs: Dict[str, int] = field(default_factory=dict)
    dead: int = 0


class Backlog:
    """The queues that a worker consumes.

    Attributes:
        seen: what the last look has found; None if a server did not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.broker_url or DEFAULT_URL
        self._ledger = connect(settings.results_url or self._url, _TIMEOUT_S)
        self._broker = connect(self._url, _TIMEOUT_S) if is_redis(self._url) else None
        #: Of each list, the message at its head, and when it was first seen there.
        self._heads: Dict[str, Tuple[bytes, float]] = {}
        self.seen: Optional[Seen] = None

    def look(self) -> None:
        """Look again; a server that is away is waited for no longer than two seconds."""
        try:
            self.seen = self._look()
        except Exception:  # redis', kombu's, amqp's, the socket's; the next look may succeed
            self.seen = None

    def _look(self) -> Seen:
        prefix, seen = self._settings.key_prefix, Seen()
        with self._ledger.pipeline(transaction=False) as pipe:
            for state in ("running", "later", "dead"):
                pipe.zcard(f"{prefix}:{state}")
            pipe.time()
            *counts, (seconds, microseconds) = pipe.execute()
        seen.jobs, seen.dead = {"running": counts[0], "later": counts[1]}, counts[2]
        for name in self._settings.consumed:
            if self._broker is None:
                seen.depth[name] = self._depth_of_rabbitmq(name)
            else:
                seen.depth[name], seen.oldest_s[name] = self._waiting(name, seconds + microseconds / 1e6)
        return seen

    def _waiting(self, name: str, ledger_now: float) -> Tuple[int, float]:
        """Messages in Redis, and the age of the oldest."""
        assert self._broker is not None
        lists = [f"{name}{_SEPARATOR}{priority}" if priority else name for priority in _PRIORITIES]
        with self._broker.pipeline(transaction=False) as pipe:
            for one in lists:
                pipe.llen(one)
                pipe.lindex(one, -1)
            found = pipe.execute()
        full = [(one, head) for one, head in zip(lists, found[1::2]) if head is not None]
        ages = [self._seen_for(one, head) for one, head in full] + self._recorded(full, ledger_now)
        self._heads = {one: self._heads[one] for one, _ in full}
        return sum(found[::2]), max(ages, default=0.0)

    def _seen_for(self, name: str, head: bytes) -> float:
        """Seconds since a message was first seen at the head: all that is known of those that nobody recorded."""
        mark, since = hashlib.sha256(head).digest(), time.monotonic()
        if name in self._heads and self._heads[name][0] == mark:
            since = self._heads[name][1]
        self._heads[name] = (mark, since)
        return time.monotonic() - since

    def _recorded(self, full: List[Tuple[str, Any]], ledger_now: float) -> List[float]:
        """By the ledger, the ages of the jobs that have been on a list for longest."""
        with self._ledger.pipeline(transaction=False) as pipe:
            for one, _ in full:
                pipe.zrange(f"{self._settings.key_prefix}:waiting:{one}", 0, 0, withscores=True)
            firsts = pipe.execute() if full else []
        return [max(0.0, ledger_now - float(score)) for first in firsts for _, score in first]

    def _depth_of_rabbitmq(self, name: str) -> int:
        server = celery_server(self._url)
        with Connection(server.url, connect_timeout=_TIMEOUT_S) as connection:
            bound = queue(name, self._url)(connection.default_channel)
            return int(bound.queue_declare(passive=True).message_count)
