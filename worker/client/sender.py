"""Puts jobs on the queue: recorded first, then sent."""

from __future__ import annotations

import contextlib
from typing import Any, Optional, Sequence, Type

import celery
import redis

from worker.broker.send import send, send_many
from worker.client.app import broker_errors
from worker.client.job import NewJob, new_job
from worker.client.sending import Limits, sent
from worker.contract import AnyJob, Job
from worker.errors import BrokerUnavailable, ImageTooLarge, JobConflict
from worker.jobs.ledger import Ledger
from worker.notify.pending import Pending

#: What :meth:`worker.client.sync.PoseClient.submit` takes that is no option of the job's.
_OWN = ("job_id", "priority", "expires", "webhook", "callback")


class Sender:
    """The sending side of a :class:`worker.client.sync.PoseClient`.

    Args:
        app, url: through which and to which broker jobs are sent.
        queue: where to, unless a job says otherwise.
    """

    def __init__(
        self, app: celery.Celery, url: str, queue: str, ledger: Ledger, pending: Pending, limits: Limits
    ) -> None:
        self._app, self._url, self._queue = app, url, queue
        self._ledger, self._pending, self._limits = ledger, pending, limits

    def new(
        self,
        path: Any = None,
        *,
        kind: Type[AnyJob] = Job,
        data: Any = None,
        upload: bool = False,
        queue: Optional[str] = None,
        **given: Any,
    ) -> NewJob:
        """A job that is checked; the arguments are those of :meth:`worker.client.sync.PoseClient.submit`.

        Args:
            kind: an image's job, or a film's.
        """
        own = {name: given.pop(name) for name in _OWN if name in given}
        attached = sent(path, data, upload, self._limits, kind)
        return new_job(path, given, kind=kind, queue=queue or self._queue, sent=attached, **own)

    def send(self, jobs: Sequence[NewJob]) -> None:
        """Record jobs, then send them; one that was submitted before under its id is not sent again."""
        with broker_errors(self._url):
            for job in jobs:
                if job.beside and self._ledger.upload(job.id, job.beside, self._limits.uploads) == "full":
                    raise ImageTooLarge(
                        f"The images that were sent with jobs would be more than {self._limits.uploads} bytes "
                        "together; wait until some of these jobs have ended, or raise POSE_MAX_UPLOADS_BYTES."
                    )
            pairs = [(job.id, job.message) for job in jobs]
            # Of one job, the way without a pipeline takes less time.
            known = self._ledger.record_many(pairs) if len(pairs) > 1 else [self._ledger.record(*pairs[0])]
        for job_id in [job.id for job, state in zip(jobs, known) if state == "other"]:
            raise JobConflict(
                f"Job {job_id} was submitted before with another image or film, or other options; choose a new id."
            )
        fresh = [pair for pair, state in zip(pairs, known) if state == "new"]
        try:
            with broker_errors(self._url):
                if len(fresh) == 1:
                    send(self._app, self._url, *fresh[0])
                elif fresh:
                    send_many(self._app, self._url, fresh)
        except BrokerUnavailable:
            with contextlib.suppress(redis.RedisError):
                for job_id, _ in fresh:
                    self._ledger.withdraw(job_id)
            raise
        for job_id, message in fresh:
            if "webhook" in message.kwargs or "callback" in message.kwargs:
                # Workers do that, too. Here it is for a job that no worker takes before its deadline.
                with contextlib.suppress(redis.RedisError):
                    self._pending.add(job_id, message.kwargs.get("webhook"), message.kwargs.get("callback"))


__all__ = ["Sender"]
