"""The task: an image path in, a result out."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Sequence

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

from worker.app import app
from worker.contract import TASK, Result, parse_message, without_query
from worker.errors import DeviceOutOfMemory, JobTimedOut, PoseError, TransientError
from worker.jobs.attempt import Attempt
from worker.notify.announce import note
from worker.notify.webhook import check_wanted
from worker.process.limits import at_work
from worker.settings import settings

logger = get_task_logger(__name__)


class Job(Task):
    """A task whose messages are never lost with the process that works on them."""

    Request = "worker.broker.request:Request"


@app.task(
    name=TASK,
    bind=True,
    typing=False,  # the contract checks the arguments, and says more than a TypeError
    throws=(PoseError,),
    base=Job,
    ignore_result=False,
)
def estimate(self: Any, *args: Any, **message: Any) -> Dict[str, Any]:
    """Find the people in an image; see worker.contract for the keyword arguments and the result.

    Raises:
        PermanentError: something is wrong with the message or the image; not tried again.
        DeadLetter: what may pass did not, POSE_MAX_ATTEMPTS times.
        Ignore: the job is tried again later, or this message of it is superfluous.
    """
    from worker.process.slot import current  # in the child only: the parent never loads cv2 or the net

    attempt = Attempt(self.request, self.backend, current().device)
    note(self.request.id, message)
    try:
        return _work(attempt, self.request, args, message)
    except TransientError as exc:
        attempt.fail(exc)


def _work(attempt: Attempt, request: Any, args: Sequence[Any], message: Mapping[str, Any]) -> Dict[str, Any]:
    """One job, with everything that can end it as one of our errors."""
    image = without_query(str(message.get("image")))
    try:
        with at_work():
            return work(attempt, request, args, message).to_message()
    except SoftTimeLimitExceeded as exc:
        limit = settings().soft_time_limit_s
        raise JobTimedOut(f"The job for {image!r} took more than {limit:g} s; raise POSE_SOFT_TIME_LIMIT_S.") from exc
    except MemoryError as exc:  # leaving a task, it would stop the whole worker
        raise DeviceOutOfMemory(f"The job for {image!r} did not fit into memory; lower POSE_MAX_PIXELS.") from exc


def work(attempt: Attempt, request: Any, args: Sequence[Any], message: Mapping[str, Any]) -> Result:
    """One job from message to result."""
    from worker.process.slot import Delivery, Stopwatch, current

    slot, watch = current(), Stopwatch()
    job = parse_message(args, message, request.id)
    check_wanted(job, settings())
    with slot.job(job):
        picture = slot.load_image(job.image, attempt.age_s)
        watch.lap("decode")
        found = slot.estimate(picture, job)
    watch.lap("estimate", parts=found.timings_ms)
    overlay = slot.render(picture, found, job.options.overlay_options)
    watch.lap("overlay")
    stored = slot.store(request.id, overlay), slot.store_maps(request.id, found)
    watch.lap("store")
    delivery = Delivery(request.id, request.hostname, attempt.number)
    return slot.result(delivery, job, picture, found, stored, watch.stop())
