"""The task: an image in, its people out. Read :meth:`PoseTask.work`, and you know the system."""

from __future__ import annotations

from typing import Any, Dict, Sequence

from worker.app import app
from worker.contract import TASK, Job, parse_message
from worker.jobs.attempt import Attempt
from worker.notify.webhook import check_wanted
from worker.people import side_enough
from worker.tasks.job import JobTask


class PoseTask(JobTask):
    """``pose.estimate``."""

    name = TASK

    def work(self, attempt: Attempt, job_id: str, args: Sequence[Any], message: Dict[str, Any]) -> Dict[str, Any]:
        """From the message to the result."""
        slot = self.app.slot
        job: Job = parse_message(args, message, job_id)
        check_wanted(job, slot.settings)
        with slot.promise(job):
            picture = slot.load_image(job.image, attempt, side_enough(job.options))
            picture = picture.rotated(job.options.rotate)
            attempt.stopwatch.lap("decode")
            found = slot.estimate(picture, job)
        attempt.stopwatch.lap("estimate", parts=found.timings_ms)
        overlay = slot.draw(picture, found, job.options.overlay_options)
        attempt.stopwatch.lap("overlay")
        stored = slot.store(job_id, overlay), slot.store_maps(job_id, found)
        attempt.stopwatch.lap("store")
        return dict(slot.result(job_id, attempt, job, picture, found, stored).to_message())


estimate = app.register_task(PoseTask())
