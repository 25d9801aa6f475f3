"""Sends again what got lost: jobs whose worker died, whose pause is over, or whose message vanished on its way.

Runs in every worker's parent; a lock in Redis lets one act at a time, and its token, checked within each step, keeps
one that was frozen meanwhile from doing anything (a fence).
"""

from __future__ import annotations

import json
import logging
import time
from typing import Callable, List, Sequence, Set

import kombu.exceptions
import redis

from worker.children import Rounds
from worker.errors import BrokerUnavailable, InvalidRequest
from worker.jobs.ledger import LEASE_S, Ledger, token
from worker.jobs.message_id import job_id_in_envelope
from worker.servers import DEFAULT_URL, PRIORITIES, Keys, connect, is_redis, queue_list
from worker.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds between two looks.
_LOOK_S = 1.0
#: How many messages from the head of a list are looked through for one that is thought lost: messages that were given
#: back come to the head in any order.
_HEAD = 2000
_TIMEOUT_S = 5.0


class Reconciler(Rounds):
    """A thread that looks after the jobs of `queues`.

    Args:
        ledger: with a connection of its own, for it is used in the thread.
        send: puts a message on its queue, under a job's id; `first` puts it at the head.
        end: stores the failure of a job that cannot be sent.
        depth: how many messages wait in a queue, where the broker is not Redis.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        send: Callable[..., None],
        end: Callable[[str, InvalidRequest], object],
        depth: Callable[[str], int],
    ) -> None:
        super().__init__("reconciler", _LOOK_S, self.look, redis.RedisError)
        self._ledger, self._send, self._end, self._depth = ledger, send, end, depth
        self._queues, self._unacked = settings.consumed, Keys(settings.key_prefix).unacked
        url = settings.broker_url or DEFAULT_URL
        self._broker = connect(url, _TIMEOUT_S) if is_redis(url) else None
        self._lists = [
            queue_list(queue, priority) for queue in self._queues for priority in (PRIORITIES if self._broker else (0,))
        ]
        self._token = token()
        self._answered, self._trusted_from = time.monotonic(), 0.0

    def look(self) -> int:
        """Send again what is lost or due; returns how many jobs.

        Raises:
            BrokerUnavailable: RabbitMQ does not answer; what could not be sent is looked for again.
        """
        try:
            return self._look()
        except (kombu.exceptions.OperationalError, OSError) as exc:
            raise BrokerUnavailable(
                f"the broker does not answer ({exc}); lost jobs are sent again when it does"
            ) from exc

    def _look(self) -> int:
        found = self._ledger.suspects(self._token, self._lists)
        if time.monotonic() - self._answered > LEASE_S / 2 + _LOOK_S:
            # Attempts could not renew their leases meanwhile; they get the time to do so.
            self._trusted_from = time.monotonic() + LEASE_S / 2
        self._answered = time.monotonic()
        if found is None:
            return 0
        running, later, waiting = found
        resent = [self._resend(job_id, "later") for job_id in later]
        if time.monotonic() >= self._trusted_from:
            resent += [self._resend(job_id, "running") for job_id in running]
        for name, suspects in waiting.items():
            resent += [self._resend(job_id, f"waiting:{name}") for job_id in self._lost(name, suspects)]
        return sum(resent)

    def _resend(self, job_id: str, seen: str) -> bool:
        try:
            message = self._ledger.claim(job_id, self._token, seen)
        except InvalidRequest as exc:  # nothing that a stranger has put there is sent on in our name
            logger.error("✗ Job %s is not sent again: %s", job_id, exc)
            self._end(job_id, exc)
            return False
        if message is None:
            return False
        if seen != "later":
            logger.warning("○ job %s was lost while it was %s; it is sent again", job_id, seen.partition(":")[0])
        self._send(job_id, message, first=True)  # for it has waited there already
        return True

    def _lost(self, name: str, suspects: Sequence[str]) -> List[str]:
        """Those of `suspects` that neither the queue nor any consumer holds."""
        if not suspects:
            return []
        if self._broker is None:  # what a consumer of RabbitMQ holds comes back by itself, and may then be there twice
            return list(suspects) if self._depth(name) == 0 else []
        held: Set[str] = set()
        with self._broker.pipeline(transaction=False) as pipe:
            pipe.lrange(name, -_HEAD, -1)
            pipe.hgetall(self._unacked)
            pipe.zrange(f"{self._unacked}_index", 0, -1)
            waiting, unacked, indexed = pipe.execute()
        held.update(map(_job_id, waiting))
        # What is not in the index as well will not be given back by anybody.
        held.update(_job_id(unacked[tag]) for tag in indexed if tag in unacked)
        return [job_id for job_id in suspects if job_id not in held]


def _job_id(text: bytes) -> str:
    """The id in a message as Redis holds it: alone in a queue, in a list while it is in work; "" if it is none."""
    try:
        message = json.loads(text)
        return job_id_in_envelope(message[0] if isinstance(message, list) else message) or ""
    except (ValueError, LookupError, AttributeError, RecursionError):  # strangers can write to queues
        return ""
