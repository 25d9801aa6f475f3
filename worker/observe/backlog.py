"""How many messages wait in the queues, and for how long: looked at now and then, in the worker's parent."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

import redis
from kombu import Connection

from worker.jobs.ledger import Ledger
from worker.servers import DEFAULT_URL, PRIORITIES, celery_server, connect, is_redis, queue, queue_list
from worker.settings import Settings

#: Seconds for which a server is waited for.
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
        self._ledger = Ledger(connect(settings.results_url or self._url, _TIMEOUT_S), settings.key_prefix)
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
        seen = Seen(jobs=self._ledger.count())
        seen.dead = seen.jobs.pop("dead")
        for name in self._settings.consumed:
            if self._broker is None:
                seen.depth[name] = depth_of_rabbitmq(name, self._url)
            else:
                seen.depth[name], seen.oldest_s[name] = self._waiting(self._broker, name)
        return seen

    def _waiting(self, broker: redis.Redis, name: str) -> Tuple[int, float]:
        """Messages in Redis, and the age of the oldest."""
        lists = [queue_list(name, priority) for priority in PRIORITIES]
        with broker.pipeline(transaction=False) as pipe:
            for one in lists:
                pipe.llen(one)
                pipe.lindex(one, -1)
            found = pipe.execute()
        heads = {one: head for one, head in zip(lists, found[1::2]) if head is not None}
        ages = [self._seen_for(one, head) for one, head in heads.items()] + self._ledger.ages(list(heads))
        self._heads = {one: self._heads[one] for one in heads}
        return sum(found[::2]), max(ages, default=0.0)

    def _seen_for(self, name: str, head: bytes) -> float:
        """Seconds since a message was first seen at the head: all that is known of those that nobody recorded."""
        mark, since = hashlib.sha256(head).digest(), time.monotonic()
        if name in self._heads and self._heads[name][0] == mark:
            since = self._heads[name][1]
        self._heads[name] = (mark, since)
        return time.monotonic() - since


def depth_of_rabbitmq(name: str, url: str) -> int:
    """How many messages wait in the queue called `name` of the RabbitMQ at `url`."""
    with Connection(celery_server(url).url, connect_timeout=_TIMEOUT_S) as connection:
        bound = queue(name, url)(connection.default_channel)
        return int(bound.queue_declare(passive=True).message_count)
