"""Tells those who wanted to know that a job has ended: a thread in every worker's parent, beside the slots.

A receiver that is slow or away costs nobody else anything: no slot waits for it, a host has only so many calls at a
time, and after a failure a pause.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Any, Callable, Dict, Mapping
from urllib.parse import urlsplit

import kombu.exceptions
import redis
from pydantic import ValidationError

from worker.children import Rounds
from worker.contract import Callback, without_query
from worker.notify.pending import LOOK_AGAIN_S, Call, Pending
from worker.notify.webhook import call, payload
from worker.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds between two looks for calls that are due.
_LOOK_S = 0.5
#: Calls at a time: of this worker, and of it to one host.
_THREADS = 8
_PER_HOST = 3
#: Longest pause between two tries, in seconds.
_PAUSE_MAX_S = 600.0


class Notifier(Rounds):
    """A thread that makes the calls that are due, and those that make them.

    Args:
        pending: with a connection of its own, for it is used in other threads.
        outcome: Celery's record of a job, as the result backend holds it; empty if there is none.
        send: sends a task: its name, its queue, its argument, its id.
    """

    def __init__(
        self,
        pending: Pending,
        settings: Settings,
        outcome: Callable[[str], Mapping[str, Any]],
        send: Callable[[str, str, Mapping[str, Any], str], None],
    ) -> None:
        super().__init__("notifier", _LOOK_S, self.look, redis.RedisError)
        self._pending, self._settings, self._outcome, self._send = pending, settings, outcome, send
        self._busy: Dict[str, int] = {}
        self._rests: Dict[str, float] = {}
        self._lock = threading.Lock()

    def look(self) -> None:
        """Make the calls that are due, each in a thread of its own."""
        free = _THREADS - sum(self._busy.values())
        lease_s = self._settings.url_timeout_s + LOOK_AGAIN_S[0]
        for entry in self._pending.claim(free, lease_s) if free else ():
            # A daemon: a worker that stops waits for no receiver; the entry's lease ends, and another tries.
            arguments = (entry, self._enter(entry))
            threading.Thread(target=self._guarded, args=arguments, name="webhook", daemon=True).start()

    def _guarded(self, entry: Call, host: str) -> None:
        try:
            self.tell(entry)
        except redis.RedisError as exc:  # the entry is due again when its lease ends
            logger.debug("The notifier cannot reach Redis: %s", exc)
        except Exception:
            logger.exception("✗ Job %s: those who wait for its end do not know of it yet; it is tried again.", entry[0])
        finally:
            with self._lock:
                self._busy[host] -= 1
                if not self._busy[host]:
                    del self._busy[host]

    def _enter(self, entry: Call) -> str:
        host = _host(entry)
        with self._lock:
            self._busy[host] = self._busy.get(host, 0) + 1
        return host

    def tell(self, entry: Call) -> None:
        """Make one call, or put it off."""
        if entry.webhook is None and entry.callback is None:
            self._pending.done(entry.job_id)  # dealt with before
            return
        try:
            ended = payload(entry.job_id, self._outcome(entry.job_id))
        except (ValueError, kombu.exceptions.KombuError):  # not there yet, or not from one of us
            first, most = LOOK_AGAIN_S
            self._pending.later(entry.job_id, min(most, first * 2.0 ** min(entry.looks, 10)), counted="looks")
            return
        host = _host(entry)
        if entry.webhook and (self._busy.get(host, 0) > _PER_HOST or self._rests.get(host, 0) > time.monotonic()):
            self._pending.later(entry.job_id, self._pause_s(1))
            return
        if self._called(entry, ended, host):
            if entry.callback:
                self._call_back(entry, ended)
            self._pending.done(entry.job_id)

    def _call_back(self, entry: Call, argument: Mapping[str, Any]) -> None:
        """Send the task that follows, if it may be sent: clients write entries, too."""
        try:
            callback = Callback.model_validate(entry.callback)
        except ValidationError:
            callback = None
        if callback is None or callback.queue not in self._settings.callback_queues:
            logger.error("✗ Job %s: its callback is not sent; see POSE_CALLBACK_QUEUES.", entry.job_id)
            return
        self._send(callback.task, callback.queue, argument, f"{entry.job_id}.ended")

    def _called(self, entry: Call, ended: Mapping[str, Any], host: str) -> bool:
        """Whether the webhook needs no other try."""
        if entry.webhook is None or not self._settings.webhook_secret:  # such a job was refused
            return True
        try:
            call(entry.webhook, ended, self._settings)
        except (PermissionError, ValueError) as exc:
            logger.error("✗ Job %s: its webhook %s is not called: %s.", entry.job_id, without_query(entry.webhook), exc)
            return True
        except OSError as exc:
            pause_s = self._pause_s(entry.tries + 1)
            logger.warning(
                "○ Job %s: its webhook %s failed (%s); it is tried again in %.1f s.",
                *(entry.job_id, without_query(entry.webhook), exc, pause_s),
            )
            self._rests[host] = time.monotonic() + self._pause_s(1)
            self._pending.later(entry.job_id, pause_s, counted="tries")
            return False
        self._rests.pop(host, None)
        return True

    def _pause_s(self, tries: int) -> float:
        longest = min(_PAUSE_MAX_S, self._settings.retry_base_s * 2.0 ** min(tries, 20))
        return longest * random.uniform(0.5, 1.0)


def _host(entry: Call) -> str:
    """Where its webhook is; whatever stands in Redis, one entry must not hold up the others that were taken with it."""
    try:
        return urlsplit(entry.webhook or "").netloc
    except ValueError:
        return ""
