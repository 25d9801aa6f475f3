"""A job as its client sees it: what is sent, what comes back, and a handle on it in between."""

from __future__ import annotations

import os
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any, List, Mapping, NamedTuple, Optional, Protocol, Union

from worker.client.app import untrusted
from worker.client.result import Result
from worker.client.sending import Sent
from worker.client.status import JobStatus
from worker.contract import DATA, Overlay, id_fault, parse_job, without_query
from worker.errors import JobCancelled, JobFailed, PoseError
from worker.jobs.ledger import Message
from worker.observe.tracing import headers

#: How a job ended: its result, or the exception that says why there is none.
Outcome = Union[Result, Exception]
#: A moment, or seconds from now.
Deadline = Union[float, timedelta, datetime]


class NewJob(NamedTuple):
    """A checked job that is about to be sent."""

    id: str
    image: str
    message: Message
    beside: Optional[bytes] = None


def new_job(
    path: Any,
    options: Mapping[str, Any],
    *,
    queue: str,
    job_id: Optional[str] = None,
    priority: int = 0,
    expires: Optional[Deadline] = None,
    webhook: Optional[str] = None,
    callback: Union[str, Mapping[str, str], None] = None,
    sent: Optional[Sent] = None,
) -> NewJob:
    """Check what :meth:`worker.client.sync.PoseClient.submit` is given, and put it in the form in which it is sent.

    Raises:
        InvalidRequest: names the argument or option that is unknown, of the wrong type or out of range.
    """
    image = sent.image if sent else os.fsdecode(path)
    if not sent and "://" not in image and not image.startswith(DATA):
        image = os.path.abspath(image)  # noqa: PTH100 - keeps symbolic links for the worker to judge
    called = {"task": callback} if isinstance(callback, str) else callback
    parse_job(image, options, _faults(job_id, priority, expires), webhook=webhook, callback=called)
    ends = {"webhook": webhook, "callback": called and dict(called)}
    message = Message(
        queue,
        kwargs={"image": image, "options": dict(options), **{k: v for k, v in ends.items() if v is not None}},
        priority=priority,
        expires=None if expires is None else _moment(expires).isoformat(),
        headers=headers(),
    )
    title = os.fsdecode(path) if sent and path is not None else image
    shown = without_query(title) if title.startswith(DATA) else title
    return NewJob(job_id or str(uuid.uuid4()), shown, message, sent.beside if sent else None)


def _faults(job_id: Any, priority: Any, expires: Any) -> List[str]:
    faults: List[str] = []
    wrong_id = None if job_id is None else id_fault(job_id)
    if wrong_id:
        faults.append(wrong_id)
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9:
        faults.append(f"priority: must be a whole number from 0 to 9 (got {priority!r:.200})")
    if expires is not None and (
        isinstance(expires, bool) or not isinstance(expires, (int, float, timedelta, datetime))
    ):
        faults.append(f"expires: must be seconds, a timedelta or a datetime (got {expires!r:.200})")
    elif expires is not None and _moment(expires) <= datetime.now(timezone.utc):
        faults.append(f"expires: must be in the future (got {expires!r:.200})")
    return faults


def _moment(deadline: Deadline) -> datetime:
    if isinstance(deadline, datetime):
        return deadline.astimezone(timezone.utc)  # one without a zone is local time
    after = deadline if isinstance(deadline, timedelta) else timedelta(seconds=deadline)
    return datetime.now(timezone.utc) + after


def result_of(job_id: str, state: str, stored: Any) -> Result:
    """A stored outcome as a Result, or raised as the error it is.

    Args:
        state: Celery's name of a state that is an end.
        stored: what the result backend holds: a result, or an exception.

    Raises:
        JobFailed: it is no result of this job, or an error of another kind than ours.
        PoseError: how the job failed.
    """
    if state == "SUCCESS":
        try:
            result = Result.model_validate(stored)
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


def not_ended(job: Any, timeout: Optional[float], why: str = "") -> str:
    """What to say of a `job` that was waited for in vain; `why` says where it is, if that is known."""
    image = f" for {job.image!r}" if job.image else ""
    return f"Job {job.id}{image} has not ended within {timeout:g} s{f': {why}' if why else '; is a worker running?'}"


def none_ended(count: int, timeout: Optional[float]) -> str:
    """What to say of `count` jobs none of which ended for `timeout` seconds."""
    return f"None of {count} jobs has ended within {timeout:g} s; is a worker running?"


class _Client(Protocol):
    """What a handle asks of its client, which is a :class:`worker.client.PoseClient`."""

    def state(self, job_id: str) -> str: ...
    def wait(self, job: JobHandle, timeout: Optional[float] = None) -> Result: ...
    def fetch(self, stored: Overlay, job_id: str) -> bytes: ...
    def cancel(self, job_id: str) -> bool: ...
    def status(self, job_id: str) -> JobStatus: ...
    def retry(self, job_id: str) -> None: ...


class JobHandle:
    """One submitted job: its id, its state, its result; and its image, unless only its id is known."""

    def __init__(self, client: _Client, job_id: str, image: str = "") -> None:
        self._client = client
        self.id = job_id
        self.image = image

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r}, {self.image!r})"

    @property
    def state(self) -> str:
        """Celery's state: PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED."""
        return self._client.state(self.id)

    def status(self) -> JobStatus:
        """Where the job is; see :meth:`worker.client.sync.PoseClient.status`."""
        return self._client.status(self.id)

    def retry(self) -> None:
        """Have it done again; see :meth:`worker.client.sync.PoseClient.retry`."""
        self._client.retry(self.id)

    def result(self, timeout: Optional[float] = None) -> Result:
        """Wait for the result.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            TimeoutError: the job has not ended within `timeout`; it goes on.
            PermanentError, DeadLetter: how the job failed, typed and in one sentence (see worker.errors).
            JobCancelled: it was cancelled, or no worker took it before its deadline.
            JobFailed: the job ended in an error of another kind.
            BrokerUnavailable: the result backend does not answer.
        """
        return self._client.wait(self, timeout)

    def overlay(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """The rendered picture as encoded bytes (see ``result().overlay.media_type``); None if none was asked for.

        Raises: as :meth:`result`, and

            StorageUnavailable: the overlay store does not answer, or the overlay has expired.
            SettingsError: the result names another store than the client's.
            JobFailed: what is stored is not what the result describes, by its size and SHA-256.
        """
        overlay = self.result(timeout).overlay
        return None if overlay is None else self._client.fetch(overlay, self.id)

    def maps(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """The net's maps as the bytes of a NumPy archive (see docs/message.md); None if they were not asked for.

        Raises: as :meth:`overlay`.
        """
        maps = self.result(timeout).maps
        return None if maps is None else self._client.fetch(maps, self.id)

    def cancel(self) -> bool:
        """Have the job not done; see :meth:`worker.client.sync.PoseClient.cancel`."""
        return self._client.cancel(self.id)


__all__ = ["Deadline", "JobHandle", "NewJob", "Outcome", "new_job", "none_ended", "not_ended", "result_of"]
