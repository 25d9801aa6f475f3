"""The task: an image path in, a result out."""

from __future__ import annotations

import math
import random
from typing import Any, Dict, Mapping, Sequence

from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

from worker.app import app
from worker.contract import TASK, Result, parse_message
from worker.errors import DeviceOutOfMemory, JobTimedOut, PoseError, TransientError
from worker.servers import is_redis
from worker.settings import settings

logger = get_task_logger(__name__)


@app.task(
    name=TASK,
    bind=True,
    typing=False,  # the contract checks the arguments, and says more than a TypeError
    throws=(PoseError,),
    max_retries=settings().max_attempts - 1,
    default_retry_delay=1,  # after a slot was lost
    retry_on_worker_lost=True,  # counts as an attempt: a job that kills slots is not tried for ever
)
def estimate(self: Any, *args: Any, **message: Any) -> Dict[str, Any]:
    """Find the people in an image; see worker.contract for the keyword arguments and the result.

    Raises:
        PermanentError: something is wrong with the message or the image; not retried.
        TransientError: retried with back-off and jitter, POSE_MAX_ATTEMPTS times in all.
    """
    try:
        return _work(self.request, args, message)
    except TransientError as exc:
        raise self.retry(exc=exc, countdown=_pause_s(self.request.retries)) from exc


def _pause_s(retries: int) -> float:
    """Seconds before the next attempt: doubled each time, less up to a half, so that what failed together parts."""
    longest = min(settings().retry_max_s, settings().retry_base_s * 2**retries)
    return _deliverable(longest * random.uniform(0.5, 1.0))


def _deliverable(pause_s: float) -> float:
    """`pause_s` as the broker can keep it: RabbitMQ's delayed delivery knows whole seconds, from one on."""
    return pause_s if is_redis(settings().broker_url or "redis://") else float(max(1, math.ceil(pause_s)))


def _work(request: Any, args: Sequence[Any], message: Mapping[str, Any]) -> Dict[str, Any]:
    """One job, with everything that can end it as one of our errors."""
    try:
        return work(request, args, message).to_message()
    except SoftTimeLimitExceeded as exc:
        limit = settings().soft_time_limit_s
        raise JobTimedOut(
            f"The job for {message.get('image')!r} took more than {limit:g} s; raise POSE_SOFT_TIME_LIMIT_S."
        ) from exc
    except MemoryError as exc:  # leaving a task, it would stop the whole worker
        raise DeviceOutOfMemory(
            f"The job for {message.get('image')!r} did not fit into memory; lower POSE_MAX_PIXELS."
        ) from exc


def work(request: Any, args: Sequence[Any], message: Mapping[str, Any]) -> Result:
    """One job from message to result."""
    # In the child only: the parent never loads cv2 or the net.
    from worker.slot import Delivery, Stopwatch, current

    slot, watch = current(), Stopwatch()
    job = parse_message(args, message)
    with slot.job(job):
        picture = slot.load_image(job.image)
        watch.lap("decode")
        found = slot.estimate(picture, job)
    watch.lap("estimate", parts=found.timings_ms)
    overlay = slot.render(picture, found, job.options.overlay_options)
    watch.lap("overlay")
    stored = slot.store(request.id, overlay)
    watch.lap("store")
    delivery = Delivery(request.id, request.hostname, request.retries + 1)
    return slot.result(delivery, job, picture, found, stored, watch.stop())
