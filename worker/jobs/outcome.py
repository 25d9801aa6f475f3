"""How one attempt at a job has ended, as the slot that made it knows: for the metrics, the log and the trace alike."""

from __future__ import annotations

import time
from typing import Any, Mapping, NamedTuple, Optional

from celery import states
from celery.exceptions import Ignore, Reject, Retry

from worker.contract import without_query
from worker.errors import PoseError, TransientError


class Outcome(NamedTuple):
    """One attempt's end.

    Attributes:
        kind: one of worker.device.tally.OUTCOMES.
        error: what went wrong, if something did.
        result: the result as it goes on the wire, if there is one.
        seconds: from the message's arrival in the slot until its outcome was stored.
        ended_at: Unix time in seconds.
        waited_s: of a first attempt, seconds from submission until it began.
        pause_s: seconds until the next attempt, if there is to be one.
    """

    job_id: str
    image: str
    attempt: int
    kind: str
    error: Optional[BaseException]
    result: Mapping[str, Any]
    seconds: float
    ended_at: float
    waited_s: Optional[float] = None
    pause_s: Optional[float] = None

    @classmethod
    def of(cls, request: Any, state: str, retval: Any, seconds: float) -> Outcome:
        """From what Celery tells at a task's end.

        Args:
            request: the task's.
            state: Celery's name of the outcome.
            retval: the result, or the exception that ended the task.
        """
        kind, error = _kind(state, retval)
        result = retval if kind == "succeeded" and isinstance(retval, dict) else {}
        image = (request.kwargs or {}).get("image") if isinstance(request.kwargs, dict) else None
        attempt = int(getattr(request, "attempt", 1))
        return cls(
            job_id=str(request.id),
            image=without_query(str(image)),
            attempt=attempt,
            kind=kind,
            error=error,
            result=result,
            seconds=seconds,
            ended_at=time.time(),
            waited_s=getattr(request, "age_s", None) if attempt == 1 else None,
            pause_s=getattr(request, "pause_s", None),
        )

    @property
    def expected(self) -> bool:
        """Whether a sentence says all there is to say: no traceback is needed."""
        return self.error is None or isinstance(self.error, PoseError)

    @property
    def error_name(self) -> str:
        """The class of the error; empty if there is none."""
        return type(self.error).__name__ if self.error is not None else ""


def _kind(state: str, retval: Any) -> tuple[str, Optional[BaseException]]:
    error = retval if isinstance(retval, BaseException) else None
    if state == states.SUCCESS:
        return "succeeded", None
    if isinstance(error, Retry):
        return "retried", error.exc
    if isinstance(error, (Ignore, Reject)):
        cause = error.__cause__ or error.__context__
        return ("retried", cause) if isinstance(cause, TransientError) else ("ignored", None)
    return ("dead" if type(error).__name__ == "DeadLetter" else "failed"), error
