"""A job before it is sent: checked, and in the form of its message."""

from __future__ import annotations

import os
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any, List, Mapping, NamedTuple, Optional, Type, Union

from worker.client.sending import Sent
from worker.contract import DATA, TASK, AnyJob, Job, id_fault, parse_job, without_query
from worker.jobs.ledger import Message
from worker.observe.tracing import headers
from worker.video_contract import VIDEO_TASK, VideoJob

#: A moment, or seconds from now.
Deadline = Union[float, timedelta, datetime]


class NewJob(NamedTuple):
    """A checked job that is about to be sent."""

    id: str
    path: str
    message: Message
    beside: Optional[bytes] = None


def new_job(
    path: Any,
    options: Mapping[str, Any],
    *,
    queue: str,
    kind: Type[AnyJob] = Job,
    job_id: Optional[str] = None,
    priority: int = 0,
    expires: Optional[Deadline] = None,
    webhook: Optional[str] = None,
    callback: Union[str, Mapping[str, str], None] = None,
    sent: Optional[Sent] = None,
) -> NewJob:
    """Check what :meth:`worker.client.sync.PoseClient.submit` is given, and put it in the form in which it is sent.

    Args:
        kind: an image's job, or a film's.

    Raises:
        InvalidRequest: names the argument or option that is unknown, of the wrong type or out of range.
    """
    place = sent.place if sent else os.fsdecode(path)
    if not sent and "://" not in place and not place.startswith(DATA):
        place = os.path.abspath(place)  # noqa: PTH100 - keeps symbolic links for the worker to judge
    called = {"task": callback} if isinstance(callback, str) else callback
    faults = _faults(job_id, priority, expires)
    if kind is VideoJob and place.startswith(DATA):
        faults.append("video: a film is not sent in the message; give its path, or upload=True")
    parse_job(place, options, faults, kind=kind, webhook=webhook, callback=called)
    ends = {"webhook": webhook, "callback": called and dict(called)}
    message = Message(
        queue,
        kwargs={kind.PLACE: place, "options": dict(options), **{k: v for k, v in ends.items() if v is not None}},
        priority=priority,
        expires=None if expires is None else _moment(expires).isoformat(),
        headers=headers(),
        task=VIDEO_TASK if kind is VideoJob else TASK,
    )
    title = os.fsdecode(path) if sent and path is not None else place
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


__all__ = ["Deadline", "NewJob", "new_job"]
