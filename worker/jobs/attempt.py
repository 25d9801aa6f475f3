"""One attempt at one job, as the slot that makes it keeps the ledger. A Redis that is away is waited for."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, TypeVar

import redis

from worker.contract import without_query
from worker.errors import DeadLetter, ImageNotReady, JobFailed, PoseError
from worker.jobs.ledger import Ledger, Message, ResultKey
from worker.jobs.stopwatch import Lap, Stopwatch
from worker.servers import damaged, said
from worker.settings import Settings
from worker.video_contract import PART_TASK, Part

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
#: What a state carries, and its name in Celery -> what is stored with it.
Encode = Callable[[Any, str], ResultKey]
#: Seconds between two tries while Redis does not answer.
_AGAIN_S = 0.5


def outlast(step: Callable[[], Answer]) -> Answer:
    """The answer of `step`, which is tried until Redis answers.

    Raises:
        JobFailed: what lies at a key of the job's is from a stranger, so that no try can succeed.
    """
    while True:
        try:
            return step()
        except redis.RedisError as exc:
            if damaged(exc):
                raise JobFailed(
                    f"A key of this job is not from a worker ({said(exc)}); see who can write to Redis."
                ) from exc
            logger.warning("The ledger's Redis does not answer (%s); it is tried again.", said(exc))
            time.sleep(_AGAIN_S)


class Superfluous(Exception):
    """This message of the job is not to be worked on: another attempt is in work, or the job has ended."""


class InParts(Exception):
    """The job's work goes on in parts, and this attempt has ended with that."""


class Holding(NamedTuple):
    """What tells this attempt from others: its job, and the worker and message it came in."""

    job_id: str
    holder: str


class AttemptEnd(NamedTuple):
    """How an attempt has ended, for whoever counts, logs, traces or calls.

    Attributes:
        message: what the job came in.
        kind: one of worker.device.tally.OUTCOMES.
        error: what went wrong, if something did.
        result: the result as the sender gets it, if there is one.
        seconds: from the message's arrival in the slot until its outcome was stored.
        ended_at: Unix time in seconds.
        laps: the stages that have run.
        waited_s: of a first attempt, seconds from submission until it began.
        pause_s: seconds until the next attempt, if there is to be one.
    """

    job_id: str
    message: Message
    attempt: int
    kind: str
    error: Optional[BaseException]
    result: Mapping[str, Any]
    seconds: float
    ended_at: float
    laps: Tuple[Lap, ...] = ()
    waited_s: Optional[float] = None
    pause_s: Optional[float] = None

    @property
    def image(self) -> str:
        """The image or the film that the message names, fit to be shown."""
        named = self.message.kwargs.get("image", self.message.kwargs.get("video"))
        return without_query(str(named))

    @property
    def is_expected(self) -> bool:
        """Whether a sentence says all there is to say: no traceback is needed."""
        return self.error is None or isinstance(self.error, PoseError)

    @property
    def error_name(self) -> str:
        """The class of the error; empty if there is none."""
        return type(self.error).__name__ if self.error is not None else ""


class Attempt:
    """An attempt that begins with the call of :meth:`begin`.

    Args:
        holding: what it is known by.
        message: what the job came in.
        where: worker, device and process, for the job's history.
        encode: how a state is stored in the result backend.

    Attributes:
        number: attempts made, this one included.
        age_s: seconds since the job was submitted.
        step: what the parts of a film have done last, one of worker.video_contract.STEPS; empty: nothing yet.
        stopwatch: runs since the attempt was made.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        holding: Holding,
        message: Message,
        where: Dict[str, Any],
        encode: Encode,
    ) -> None:
        self._ledger, self._settings, self._holding = ledger, settings, holding
        self._message, self._where, self._encode = message, where, encode
        self.number, self.age_s, self.step = 1, 0.0, ""
        self.stopwatch = Stopwatch()

    def begin(self) -> None:
        """Count the attempt before it is made.

        Raises:
            DeadLetter: the job has used up its attempts.
            Superfluous: this message of the job is not to be worked on.
        """
        most, started = self._settings.max_attempts, self._encode(self._where, "STARTED")
        begun = outlast(lambda: self._ledger.begin(*self._holding, self._message, self._where, most, started))
        self.number, self.age_s, self.step = begun.attempts, begun.age_s, begun.step
        if begun.verdict == "dead":
            raise self._dead("its process or its worker died each time")
        if begun.verdict == "other":
            job_id = self._holding.job_id
            logger.error("✗ A message that calls itself job %s asks for something else; it is dropped.", job_id)
            raise Superfluous
        if begun.verdict != "begun":
            logger.info("Job %s is %s; this message of it is dropped.", self._holding.job_id, begun.verdict)
            raise Superfluous

    def uploaded(self, most: int, job_id: str = "") -> bytes:
        """What was sent with the job, or with `job_id`, of more than `most` bytes one more; empty if it is gone."""
        return outlast(lambda: self._ledger.uploaded(job_id or self._holding.job_id, most))

    def await_parts(self, step: str, frames: int, arguments: Sequence[Mapping[str, Any]]) -> List[Tuple[str, Message]]:
        """Have a film's work go on in parts, and end this attempt; returns the parts' ids and messages, to be sent.

        Args:
            step: what is done in them, one of worker.video_contract.STEPS.
            frames: of all parts together.
            arguments: the keyword arguments of each part.

        Raises:
            Superfluous: another attempt has taken over.
        """
        job_id, own = self._holding.job_id, replace(self._message, expires=None)  # for it has been taken
        messages = [replace(own, task=PART_TASK, args=[], kwargs=dict(one)) for one in arguments]
        if not outlast(lambda: self._ledger.await_parts(*self._holding, own, step, frames, messages)):
            raise Superfluous
        states = outlast(lambda: self._ledger.part_states(job_id, step, len(messages)))
        return [
            (Part(job_id, step, number).id, message)
            for number, (message, state) in enumerate(zip(messages, states))
            if state == "waiting"
        ]

    def part_states(self, count: int) -> List[str]:
        """The states of the film's parts, of which there are so many in this step."""
        return outlast(lambda: self._ledger.part_states(self._holding.job_id, self.step, count))

    def renew(self) -> None:
        """Tell the ledger that the attempt is still in work; raises redis.RedisError."""
        self._ledger.renew(*self._holding)

    def put_off(self, exc: PoseError) -> float:
        """Have the job tried again after a pause, because `exc` may pass; returns the pause in seconds.

        Raises:
            DeadLetter: the job has used up its attempts.
        """
        what, most = f"{type(exc).__name__}: {exc}", self._settings.max_attempts
        retry = self._encode(exc, "RETRY")
        # A file that is not there yet is waited for as long as POSE_FILE_GRACE_S says, however often that is.
        counts = not isinstance(exc, ImageNotReady)
        longest = self._settings.retry_base_s * 2 ** (self.number - 1)
        if not counts:  # as long as the job has waited for it already: that doubles each time, too
            longest = max(self._settings.retry_base_s, self.age_s)
        # Less up to a half, so that what failed together parts.
        pause_s = min(self._settings.retry_max_s, longest) * random.uniform(0.5, 1.0)
        state = outlast(lambda: self._ledger.later(*self._holding, what, pause_s, most, retry, counts=counts))
        if state == "dead":
            raise self._dead(what)
        return pause_s

    def end(
        self,
        kind: str,
        *,
        error: Optional[BaseException] = None,
        result: Optional[Mapping[str, Any]] = None,
        pause_s: Optional[float] = None,
    ) -> AttemptEnd:
        """How it has ended, now; the arguments are as in :class:`AttemptEnd`."""
        return AttemptEnd(
            job_id=self._holding.job_id,
            message=self._message,
            attempt=self.number,
            kind=kind,
            error=error,
            result=result or {},
            seconds=self.stopwatch.seconds,
            ended_at=time.time(),
            laps=tuple(self.stopwatch.laps),
            waited_s=self.age_s if self.number == 1 else None,
            pause_s=pause_s,
        )

    def _dead(self, what: str) -> DeadLetter:
        times = "once" if self.number == 1 else f"{self.number} times"
        job_id = self._holding.job_id
        return DeadLetter(
            f"Job {job_id} was tried {times} in vain, last: {what.rstrip('.')}; "
            f"see: python -m worker dead show {job_id}"
        )
