"""What all tasks have in common: one attempt at one job, from its message to its outcome."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

from celery import Task
from celery.exceptions import Ignore

from worker.broker.request import holding, message_of
from worker.contract import without_query
from worker.errors import DeadLetter, DeviceOutOfMemory, JobTimedOut, PoseError, TransientError
from worker.jobs.attempt import Attempt, InParts, Superfluous, outlast
from worker.notify.pending import wanted
from worker.process.life import TimeUp


class JobTask(Task):
    """In a slot, it works on one job at a time."""

    typing = False  # the contract checks the arguments, and says more than a TypeError
    throws = (PoseError,)
    ignore_result = False  # an outcome that is not stored would not end the job
    Request = "worker.broker.request:Request"
    resultrepr_maxsize = 0  # Celery's own line and event about a result; ours says more

    #: The attempt in work, or the last one.
    _attempt: Optional[Attempt] = None

    def work(self, attempt: Attempt, job_id: str, args: Sequence[Any], message: Dict[str, Any]) -> Dict[str, Any]:
        """Do what the message asks for; returns the result.

        Raises:
            PoseError: what is wrong, or may pass.
            Superfluous, InParts: nothing more is to be done in this attempt.
        """
        raise NotImplementedError

    def run(self, *args: Any, **message: Any) -> Dict[str, Any]:
        """One attempt at one job; see worker.contract for the keyword arguments and the result.

        Raises:
            PermanentError: something is wrong with the message or the image; not tried again.
            DeadLetter: what may pass did not, POSE_MAX_ATTEMPTS times.
            Ignore: the job is tried again later, goes on in parts, or this message of it is superfluous.
        """
        app, request, slot = self.app, self.request, self.app.slot
        job_id, settings = request.id, slot.settings
        attempt = self._attempt = Attempt(
            app.ledger,
            settings,
            holding(request, app.incarnation),
            message_of(request, settings.consumed[0]),
            slot.where,
            lambda carried, state: app.backend.encoded(job_id, carried, state, request=request),
        )
        slot.life.begin(attempt.renew)
        try:
            attempt.begin()
            listeners = wanted(message, settings)
            if listeners:
                outlast(lambda: app.pending.add(job_id, *listeners))
            with slot.life.at_work(settings.soft_time_limit_s):
                return self.work(attempt, job_id, args, message)
        except Superfluous:
            slot.announce(attempt.end("ignored"))
        except InParts:
            slot.announce(attempt.end("continued"))
        except (TransientError, TimeUp, MemoryError) as exc:
            error = _as_transient(exc, message, settings.soft_time_limit_s)
            slot.announce(attempt.end("retried", error=error, pause_s=attempt.put_off(error)))
        raise Ignore

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Celery has stored the outcome: whoever hears of it can read the result."""
        attempt, slot = self._attempt, self.app.slot
        if attempt is None:
            return
        if isinstance(retval, BaseException):
            kind = "dead" if isinstance(retval, DeadLetter) else "failed"
            slot.announce(attempt.end(kind, error=retval))
        else:
            slot.announce(attempt.end("succeeded", result=retval))
        if wanted(kwargs, slot.settings):
            self.app.pending.ring(task_id)


def _as_transient(exc: BaseException, message: Dict[str, Any], limit_s: float) -> TransientError:
    """What the job ends in, or is tried again for; a MemoryError that left the task would stop the whole worker."""
    image = without_query(str(message.get("image", message.get("video"))))
    if isinstance(exc, TransientError):
        return exc
    if isinstance(exc, TimeUp):
        return JobTimedOut(f"The job for {image!r} took more than {limit_s:g} s; raise POSE_SOFT_TIME_LIMIT_S.")
    return DeviceOutOfMemory(f"The job for {image!r} did not fit into memory; lower POSE_MAX_PIXELS.")
