"""One attempt at one job, as the slot that makes it tells the ledger. A Redis that is away is waited for."""

from __future__ import annotations

import logging
import os
import random
import secrets
import time
from functools import lru_cache
from typing import Any, Callable, Dict, NamedTuple, NoReturn, TypeVar

import redis
from celery.exceptions import Ignore

from worker.errors import DeadLetter, ImageNotReady, PoseError
from worker.jobs.ledger import Ledger, Message, ResultKey
from worker.servers import DEFAULT_URL, connect, said
from worker.settings import settings

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
#: Seconds within which Redis must answer, and between two tries while it does not.
_TIMEOUT_S = 5.0
_AGAIN_S = 0.5
#: Tells this worker from the one of its name that was killed before it: Redis may give both the same message. Drawn
#: before the slots fork, so that they have it in common with their parent.
_INCARNATION = secrets.token_hex(4)


@lru_cache(maxsize=1)
def ledger() -> Ledger:
    """This process's way to the ledger."""
    return new_ledger()


def new_ledger() -> Ledger:
    """A way to the ledger with connections of its own."""
    configured = settings()
    client = connect(configured.results_url or DEFAULT_URL, _TIMEOUT_S)
    return Ledger(client, configured.key_prefix, configured.dead_keep_s)


def outlast(step: Callable[[], Answer]) -> Answer:
    """The answer of `step`, which is tried until Redis answers."""
    while True:
        try:
            return step()
        except redis.RedisError as exc:
            logger.warning("The ledger's Redis does not answer (%s); it is tried again.", said(exc))
            time.sleep(_AGAIN_S)


class Holding(NamedTuple):
    """What tells this attempt from others: its job, and the worker and message it came in."""

    job_id: str
    holder: str

    @classmethod
    def of(cls, request: Any) -> Holding:
        """From Celery's request, in the slot as in its parent."""
        properties = request.properties if isinstance(request.properties, dict) else {}
        return cls(request.id, f"{request.hostname} {_INCARNATION} {properties.get('delivery_tag', '')}")


class Attempt:
    """An attempt that begins now.

    Args:
        request: Celery's, of the message that the job came in.
        backend: Celery's result backend, whose form intermediate states take.
        device: the worker's, for the history.

    Raises:
        DeadLetter: the job has used up its attempts.
        Ignore: another attempt is in work, or the job has ended; this message is superfluous.
    """

    def __init__(self, request: Any, backend: Any, device: str) -> None:
        self._request, self._backend = request, backend
        request.ignore_result = False  # an outcome that is not stored would not end the job
        self._holding = Holding.of(request)
        where = {"worker": request.hostname, "device": device, "pid": os.getpid()}
        message, started = message_of(request), self._result("STARTED", where)
        most = settings().max_attempts
        begun = outlast(lambda: ledger().begin(*self._holding, message, where, most, started))
        #: Attempts made, this one included.
        self.number = begun.attempts
        #: Seconds since the job was submitted.
        self.age_s = begun.age_s
        # For the metrics, the log and the trace, which see the request when the attempt is over.
        request.attempt, request.age_s = self.number, self.age_s
        if begun.verdict == "dead":
            self._die("its process or its worker died each time")
        if begun.verdict == "other":
            logger.error("✗ A message that calls itself job %s asks for something else; it is dropped.", request.id)
            raise Ignore
        if begun.verdict != "begun":
            logger.info("Job %s is %s; this message of it is dropped.", request.id, begun.verdict)
            raise Ignore

    def fail(self, exc: PoseError) -> NoReturn:
        """Have the job tried again after a pause, because `exc` may pass; raises Ignore, or DeadLetter."""
        what = f"{type(exc).__name__}: {exc}"
        retry = self._result("RETRY", self._backend.prepare_exception(exc))
        most = settings().max_attempts
        # A file that is not there yet is waited for as long as POSE_FILE_GRACE_S says, however often that is.
        counts = not isinstance(exc, ImageNotReady)
        # As long as the job has waited for it already: that doubles each time, too.
        pause_s = _pause_s(self.number) if counts else _shortened(max(settings().retry_base_s, self.age_s))
        state = outlast(lambda: ledger().later(*self._holding, what, pause_s, most, retry, counts=counts))
        if state == "dead":
            self._die(what)
        self._request.pause_s = pause_s
        raise Ignore

    def _die(self, what: str) -> NoReturn:
        times = "once" if self.number == 1 else f"{self.number} times"
        raise DeadLetter(
            f"Job {self._request.id} was tried {times} in vain, last: {what.rstrip('.')}; "
            f"see: python -m worker dead show {self._request.id}"
        )

    def _result(self, state: str, result: Any) -> ResultKey:
        meta = self._backend._get_result_meta(result, state, None, self._request)
        meta["task_id"] = self._request.id
        key = self._backend.get_key_for_task(self._request.id)
        return ResultKey(_text(key), self._backend.encode(meta), settings().result_expires_s)


def message_of(request: Any) -> Message:
    """What would have to be sent if the message of Celery's `request` got lost."""
    delivery: Dict[str, Any] = request.delivery_info or {}
    return Message(
        queue=str(delivery.get("routing_key") or settings().consumed[0]),
        args=list(request.args or ()),
        kwargs=dict(request.kwargs or {}),
        priority=int(delivery.get("priority") or 0),
        expires=str(request.expires) if request.expires else None,
        headers=dict(request.headers or {}),
    )


def _pause_s(attempts: int) -> float:
    """Seconds before the next attempt: doubled each time."""
    return _shortened(settings().retry_base_s * 2 ** (attempts - 1))


def _shortened(pause_s: float) -> float:
    """`pause_s` up to a limit, less up to a half, so that what failed together parts."""
    return min(settings().retry_max_s, pause_s) * random.uniform(0.5, 1.0)


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)
