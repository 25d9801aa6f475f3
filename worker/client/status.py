"""Where a job is, for those who wait for it; in words, too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Dict, Optional, Tuple, Union

from worker.client.film import progress_of
from worker.contract import Result
from worker.errors import DeadLetter, JobCancelled
from worker.jobs.where import Where
from worker.servers import is_redis
from worker.video_contract import VideoResult

#: What has been done with those of a film's segments that are done, by phase.
_DONE = {"look": "looked at", "draw": "drawn"}


@dataclass(frozen=True)
class JobStatus:
    """Where a job is.

    Attributes:
        state: ``waiting``, ``running``, ``retried`` (it waits for its next attempt), ``done``, ``failed``, ``dead``,
            ``revoked`` (it was cancelled, or its deadline had passed), or ``unknown``: there is no record of it.
        queue: which it waits in, or came from.
        before: about how many jobs wait before it, if it waits; None on RabbitMQ, which does not say.
        attempt: attempts begun, the one in work included.
        since: when it came into this state, a Unix time in seconds, where that is known.
        worker: which works, or has worked, on it.
        why: what the last attempt, or the job, has failed with.
        next_at: when the next attempt is due, a Unix time in seconds, if it is ``retried``.
        served: whether a worker takes jobs from `queue`.
        phase, done, segments: how far a film is, as worker.video_contract.Progress has it; empty of an image, and
            before a film is planned.
    """

    job_id: str
    state: str
    queue: str = ""
    before: Optional[int] = None
    attempt: int = 0
    since: Optional[float] = None
    worker: str = ""
    why: str = ""
    next_at: Optional[float] = None
    served: bool = True
    phase: str = ""
    done: int = 0
    segments: int = 0

    def __str__(self) -> str:
        return f"Job {self.job_id} {self._in_words()}."

    def _in_words(self) -> str:
        why = self.why.rstrip(".")
        if self.state == "waiting":
            before = "" if self.before is None else f", with about {self.before} before it"
            again = f" after attempt {self.attempt} ({why})" if self.attempt and why else ""
            return f"waits on queue {self.queue!r}{before}{again}"
        if self.segments:
            return f"is in parts: {self.done} of {self.segments} segments {_DONE.get(self.phase, 'done')}"
        if self.state == "running":
            return f"is in work: attempt {self.attempt} since {_moment(self.since)} on {self.worker or 'a worker'}"
        if self.state == "retried":
            return f"is tried again at {_moment(self.next_at)}, after attempt {self.attempt}: {why}"
        if self.state == "unknown":
            return "has no record and no result: it waits without a record, has expired, or was never sent"
        return f"is {self.state}" + (f": {why}" if why else "")


def status_of(
    job_id: str, where: Where, outcome: Union[Result, VideoResult, Exception, None], broker_url: str
) -> JobStatus:
    """The status of a job by its record and, if there is one, its stored outcome."""
    if outcome is not None:
        state, why = _ended(outcome)
        worker, attempt = (outcome.worker, outcome.attempt) if isinstance(outcome, (Result, VideoResult)) else ("", 0)
        worker, attempt = worker or where.worker, attempt or where.attempts
        return JobStatus(job_id, state, where.queue, None, attempt, where.ended, worker, why)
    known = JobStatus(job_id, where.state or "unknown", where.queue, attempt=where.attempts, worker=where.worker)
    if where.state == "waiting":
        before = where.before if is_redis(broker_url) else None
        return replace(known, before=before, since=where.sent, why=where.why, served=where.served)
    if where.step:
        film = progress_of(where)
        known = replace(known, phase=film.phase, done=film.done, segments=film.segments)
    if where.state == "parts":
        return replace(known, state="running", since=where.parts_since, served=where.served)
    if where.state == "running":
        return replace(known, since=where.begun)
    if where.state == "later":
        return replace(known, state="retried", next_at=where.due, why=where.why, served=where.served)
    return replace(known, since=where.ended, why=where.why)


def _ended(outcome: Union[Result, VideoResult, Exception]) -> Tuple[str, str]:
    if isinstance(outcome, (Result, VideoResult)):
        return "done", ""
    kinds: Dict[type, str] = {JobCancelled: "revoked", DeadLetter: "dead"}
    return kinds.get(type(outcome), "failed"), f"{type(outcome).__name__}: {outcome}"


def _moment(seconds: Optional[float]) -> str:
    if seconds is None:
        return "an unknown time"
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"


__all__ = ["JobStatus", "status_of"]
