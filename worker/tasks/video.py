"""The tasks of films: a film is cut into segments, whose people are looked for anywhere; then one worker joins them.

::

    pose.video ─ plan ─► parts film/look/0 … ─► pose.video ─ join ─► parts film/draw/0 … ─► pose.video ─ put together

The film's message comes once for each of its steps; which one is next is in its record. While its parts are in work it
is in no queue. Any step may be done again, by anybody: it ends by one change in the ledger, and what it has kept before
has the same name, and the same content, each time.
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, List, Sequence

import kombu.exceptions
import redis

from worker.app import app
from worker.broker.send import send, send_many
from worker.contract import parse_job, parse_message
from worker.errors import InvalidRequest, PoseError
from worker.jobs.attempt import Attempt, InParts
from worker.notify.webhook import check_wanted
from worker.process.film import Plan, failure, result_of
from worker.servers import DEFAULT_URL
from worker.settings import settings
from worker.tasks.job import JobTask
from worker.video.film import Head
from worker.video.plan import Segment
from worker.video_contract import PART_TASK, VIDEO_TASK, Part, VideoJob, part_of


class VideoTask(JobTask):
    """``pose.video``: whichever step of a film is next."""

    name = VIDEO_TASK

    def work(self, attempt: Attempt, job_id: str, args: Sequence[Any], message: Dict[str, Any]) -> Dict[str, Any]:
        """Plan, join, or put together."""
        slot = self.app.slot
        job: VideoJob = parse_message(args, message, job_id, VideoJob)
        check_wanted(job, slot.settings)
        films, options = self.app.films, message.get("options") or {}
        if not attempt.step:
            slot.check(job)
            made = films.plan(job_id, job, attempt)
            self._go_on_in_parts("look", made, attempt, made.arguments(job, options))
        made = films.planned(job_id)
        states = attempt.part_states(len(made.segments))
        if attempt.step == "look":
            made = films.join(job_id, job, made, states)
        failed = [number for number, state in enumerate(states) if state != "done"]
        if failed:
            raise failure(job_id, made, failed, self._why(Part(job_id, attempt.step, failed[0])))
        wants_film = job.options.overlay_options is not None and made.joined["frames"] > 0
        if attempt.step == "look" and wants_film:
            self._go_on_in_parts("draw", made, attempt, made.arguments(job, options))
        overlay = films.put_together(job_id, made) if wants_film else None
        result = result_of(job_id, job, made, overlay, slot, attempt)
        films.clear(job_id, made)
        return result.to_message()

    def _go_on_in_parts(self, step: str, made: Plan, attempt: Attempt, arguments: List[Dict[str, Any]]) -> None:
        parts = attempt.await_parts(step, made.frames, arguments)
        # What is not sent now, a reconciler finds lost.
        with contextlib.suppress(kombu.exceptions.OperationalError, OSError):
            send_many(self.app, settings().broker_url or DEFAULT_URL, parts)
        raise InParts

    def _why(self, part: Part) -> str:
        """What a part has failed with."""
        stored = self.app.backend.get_task_meta(part.id).get("result")
        return f"{type(stored).__name__}: {stored}" if isinstance(stored, PoseError) else "its record is gone"


class PartTask(JobTask):
    """A part of a film's work: a segment is looked at, or drawn."""

    name = PART_TASK

    def work(self, attempt: Attempt, job_id: str, args: Sequence[Any], message: Dict[str, Any]) -> Dict[str, Any]:
        """Look, or draw."""
        films, part = self.app.films, part_of(job_id)
        job: VideoJob = parse_job(message.get("video"), message.get("options"), kind=VideoJob)
        try:
            head, segment = Head.of(message["head"]), Segment.of(message["segment"])
        except (KeyError, ValueError) as exc:
            raise InvalidRequest(f"The part {job_id} of a film says nothing of its segment: {exc}.") from exc
        assert part is not None  # the gate has looked
        step = films.look if part.step == "look" else films.draw
        return {"job_id": job_id, "frames": step(part, job, head, segment, attempt)}

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The last part to end has its film's message sent; a reconciler would do so a second later."""
        super().after_return(status, retval, task_id, args, kwargs, einfo)
        part = part_of(task_id)
        with contextlib.suppress(redis.RedisError, kombu.exceptions.OperationalError, OSError):
            message = self.app.ledger.resume(part.film) if part else None
            if part and message:
                send(self.app, settings().broker_url or DEFAULT_URL, part.film, message)


film = app.register_task(VideoTask())
part = app.register_task(PartTask())
