"""How a job has ended: its result, an image's or a film's, or the error that says why there is none."""

from __future__ import annotations

from typing import Any, Optional, Type, TypeVar, Union

from worker.client.app import untrusted
from worker.client.result import Result
from worker.errors import JobCancelled, JobFailed, PoseError
from worker.video_contract import VideoResult

#: How an image's job ended: its result, or the exception that says why there is none.
Outcome = Union[Result, Exception]
#: The same of a job of which it is not known whether it is an image's or a film's.
AnyOutcome = Union[Result, VideoResult, Exception]
#: The result of one of the two.
Found = TypeVar("Found", Result, VideoResult)


def result_of(job_id: str, state: str, stored: Any) -> Union[Result, VideoResult]:
    """A stored outcome as a result, or raised as the error it is.

    Args:
        state: Celery's name of a state that is an end.
        stored: what the result backend holds: a result, or an exception.

    Raises:
        JobFailed: it is no result of this job, or an error of another kind than ours.
        PoseError: how the job failed.
    """
    if state == "SUCCESS":
        kind = VideoResult if isinstance(stored, dict) and "video" in stored else Result
        try:
            result = kind.model_validate(stored)
        except Exception as exc:  # pydantic's own, or what one of the values raises
            raise untrusted(job_id) from exc
        if result.job_id != job_id:
            raise untrusted(job_id)
        return result
    if state == "REVOKED":
        raise JobCancelled(f"Job {job_id} was not done: it was cancelled, or its deadline had passed ({stored}).")
    if isinstance(stored, PoseError):
        raise stored
    raise JobFailed(f"Job {job_id} ended as {state}: {stored}.")


def of_kind(job_id: str, outcome: AnyOutcome, kind: Type[Found]) -> Union[Found, Exception]:
    """`outcome`, if it is an error or of this kind; else the error that says of which it is."""
    if isinstance(outcome, Exception):
        return outcome
    if isinstance(outcome, VideoResult) == issubclass(kind, VideoResult):
        found: Any = outcome
        return found
    what = "a film's; take client.video(id)" if isinstance(outcome, VideoResult) else "an image's; take client.job(id)"
    return JobFailed(f"The result of job {job_id} is {what}.")


def not_ended(job: Any, timeout: Optional[float], why: str = "") -> str:
    """What to say of a `job` that was waited for in vain; `why` says where it is, if that is known."""
    path = f" for {job.path!r}" if job.path else ""
    return f"Job {job.id}{path} has not ended within {timeout:g} s{f': {why}' if why else '; is a worker running?'}"


def none_ended(count: int, timeout: Optional[float]) -> str:
    """What to say of `count` jobs none of which ended for `timeout` seconds."""
    return f"None of {count} jobs has ended within {timeout:g} s; is a worker running?"


__all__ = ["AnyOutcome", "Found", "Outcome", "none_ended", "not_ended", "of_kind", "result_of"]
