"""What a slot does for films: plan, look at a segment, join what was found, draw a segment, put the film together.

Each is one attempt; what it leaves for the next one lies in the overlay store, under the film's id.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from worker.contract import AnyJob, Overlay, without_query
from worker.errors import ImageTooLarge, InvalidRequest, VideoFailed
from worker.files import printable
from worker.images.films import Films
from worker.jobs.attempt import Attempt
from worker.people import to_style
from worker.pose.skeleton import Skeleton
from worker.process.life import TimeUp
from worker.process.slot import Slot
from worker.storage.urls import key_of
from worker.video.draw import TRAIL_S, Drawer
from worker.video.encode import encode, join_films
from worker.video.film import Bounds, Film, Head, probe
from worker.video.join import join
from worker.video.lines import FrameFound, dumps, loads
from worker.video.plan import Segment, plan
from worker.video.reader import Frame, read_frames
from worker.video_contract import Part, Video, VideoJob, VideoResult

_LINES, _FILM, _PLAN = "application/gzip", "video/mp4", "application/json"
#: Most bytes of a segment's people, or of a film's, when they are read again.
_MOST_LINES, _MOST_FILM = 1 << 30, 1 << 34


class Plan(NamedTuple):
    """How a film was cut, and what is known of the whole since its segments were joined."""

    video: Video
    head: Head
    segments: List[Segment]
    joined: Mapping[str, Any] = {}

    @property
    def frames(self) -> int:
        """Frames that are looked at."""
        return sum(len(segment.pts) for segment in self.segments)

    def arguments(self, job: VideoJob, options: Any) -> List[Dict[str, Any]]:
        """The keyword arguments of the parts of a step; `options` as in the film's message."""
        same = {"video": job.video, "options": options, "head": self.head.to_message()}
        return [{**same, "segment": segment.to_message()} for segment in self.segments]

    def dumps(self) -> bytes:
        """As it is kept."""
        fields = {
            "video": self.video.model_dump(mode="json"),
            "head": self.head.to_message(),
            "segments": [segment.to_message() for segment in self.segments],
            "joined": self.joined,
        }
        return json.dumps(fields).encode()

    @classmethod
    def loads(cls, data: bytes) -> Plan:
        """From what was kept; raises ValueError if it is none."""
        fields = json.loads(data)
        segments = [Segment.of(segment) for segment in fields["segments"]]
        return cls(Video.model_validate(fields["video"]), Head.of(fields["head"]), segments, fields["joined"])


class FilmWork:
    """The films of one slot's jobs."""

    def __init__(self, slot: Slot, films: Optional[Films] = None) -> None:
        self._slot, self._films = slot, films or Films.of_user()
        settings = slot.settings
        self._policy = replace(
            slot.policy, max_bytes=settings.max_video_bytes, url_timeout_s=settings.soft_time_limit_s
        )
        self._bounds = Bounds(settings.max_pixels, settings.max_aspect, settings.max_video_s, settings.max_video_frames)

    def plan(self, film_id: str, job: VideoJob, attempt: Attempt) -> Plan:
        """Look at the film from outside, cut it, and keep the plan.

        Raises:
            ImageError: what is wrong with the film.
            ImageNotReady, ImageUnreadable, StorageUnavailable: worth another try.
        """
        options, shown = job.options, printable(without_query(job.video))
        with self._opened(film_id, job, attempt) as file, self._slot.life.decoding():
            film = probe(file, shown, self._bounds)
        segments = plan(
            film,
            every=options.every,
            start_s=options.start_s,
            end_s=options.end_s,
            max_frames=options.max_frames,
            frames_per_segment=self._slot.settings.segment_frames,
        )
        return self._keep(film_id, Plan(_described(film, job), film.head(), segments))

    def _keep(self, film_id: str, made: Plan) -> Plan:
        self._slot.put(film_id, made.dumps(), _PLAN)
        return made

    def planned(self, film_id: str) -> Plan:
        """The plan that was kept; raises StorageUnavailable."""
        return Plan.loads(self._kept(film_id, _PLAN, _MOST_LINES))

    def look(self, part: Part, job: VideoJob, head: Head, segment: Segment, attempt: Attempt) -> int:
        """Find the people in a segment, and keep them; returns the number of frames."""
        slot, found = self._slot, []
        with self._opened(part.film, job, attempt) as file:
            frames = self._frames(file, job, head, segment)
            while some := list(islice(frames, slot.batch)):
                with slot.promise(job):
                    estimates = slot.look([_turned(frame.pixels, job) for frame in some], job)
                found += [FrameFound(frame.number, frame.time_s, one.people) for frame, one in zip(some, estimates)]
                slot.life.go_on()
        attempt.stopwatch.lap("look")
        slot.put(part.id, dumps(found), _LINES)
        return len(found)

    def join(self, film_id: str, job: VideoJob, made: Plan, states: Sequence[str]) -> Plan:
        """Join the people of the segments that are done, give them ids, and keep them; what is drawn, too.

        Args:
            states: those of the segments.
        """
        done = [number for number, state in enumerate(states) if state == "done"]
        segments = (self._kept(Part(film_id, "look", number).id, _LINES, _MOST_LINES) for number in done)
        options, skeleton = job.options, self.skeleton(job)
        joined = join(self._going_on(segments), skeleton, track=options.track, cutoff=options.smooth)
        keypoints = self._slot.put(film_id, joined.data, _LINES)
        if job.options.overlay_options is not None and len(done) == len(states):
            self._hand_out(film_id, skeleton, made, joined.data)
        fields = {**joined.summary(), "keypoints": keypoints.model_dump(mode="json")}
        return self._keep(film_id, made._replace(joined={**fields, "missing": made.frames - fields["frames"]}))

    def _hand_out(self, film_id: str, skeleton: Skeleton, made: Plan, data: bytes) -> None:
        """Keep for each segment what it is drawn from: its people, and those a little before, whose trails are seen."""
        before: List[FrameFound] = []
        frames = loads(data, skeleton)
        left = next(frames, None)
        for segment in made.segments:
            last = segment.frame_number(len(segment.pts) - 1)
            own = [one for one in before if one.time_s >= segment.times_s[0] - TRAIL_S]
            while left is not None and left.number <= last:
                own.append(left)
                left = next(frames, None)
            self._slot.put(Part(film_id, "draw", segment.number).id, dumps(own), _LINES)
            before = own
            self._slot.life.go_on()

    def draw(self, part: Part, job: VideoJob, head: Head, segment: Segment, attempt: Attempt) -> int:
        """Draw a segment and keep it as a film; returns the number of frames."""
        slot, style = self._slot, job.options.overlay_options
        if style is None:
            raise InvalidRequest("A part of a film is to be drawn that nobody wants drawn.")
        skeleton = self.skeleton(job)
        found = loads(self._kept(part.id, _LINES, _MOST_LINES), skeleton)
        drawer, count = Drawer(skeleton, to_style(style)), 0

        def drawn(frames: Iterator[Frame]) -> Iterator[Tuple[np.ndarray, float]]:
            nonlocal count
            for frame in frames:
                yield drawer.draw(_turned(frame.pixels, job), people.get(frame.number)), frame.time_s
                count += 1
                slot.life.go_on()

        people = {one.number: one for one in found}
        drawer.see(one for one in people.values() if one.time_s < segment.times_s[0])
        with self._opened(part.film, job, attempt) as file:
            data = encode(drawn(self._frames(file, job, head, segment)), segment.times_s[0], style.quality)
        attempt.stopwatch.lap("draw")
        slot.put(part.id, data, _FILM)
        return count

    def put_together(self, film_id: str, made: Plan) -> Overlay:
        """The drawn segments as one film, which is kept."""
        with tempfile.TemporaryDirectory() as folder:
            parts, out = [], Path(folder) / "film.mp4"
            for segment in made.segments:
                data = self._kept(Part(film_id, "draw", segment.number).id, _FILM, _MOST_FILM)
                if data:
                    path = Path(folder) / f"{segment.number}.mp4"
                    path.write_bytes(data)
                    parts.append((path, segment.times_s[0]))
                self._slot.life.go_on()
            join_films(parts, out)
            return self._slot.put(film_id, out.read_bytes(), _FILM)

    def clear(self, film_id: str, made: Plan) -> None:
        """Remove what was left for later steps; what cannot be removed expires."""
        self._slot.stored.delete(key_of(film_id, _PLAN))
        for segment in made.segments:
            for step, kind in (("look", _LINES), ("draw", _LINES), ("draw", _FILM)):
                self._slot.stored.delete(key_of(Part(film_id, step, segment.number).id, kind))

    def skeleton(self, job: AnyJob) -> Skeleton:
        return self._slot.net_of(job).estimator.skeleton

    def _kept(self, part_id: str, media_type: str, most: int) -> bytes:
        return self._slot.stored.get(key_of(part_id, media_type), most)

    def _going_on(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self._slot.life.go_on()

    @contextmanager
    def _opened(self, film_id: str, job: VideoJob, attempt: Attempt) -> Iterator[BinaryIO]:
        policy = replace(self._policy, wait_for_missing=attempt.age_s < self._slot.settings.file_grace_s)
        most = self._slot.settings.max_bytes
        with self._films.opened(job.video, film_id, policy, lambda: attempt.uploaded(most, film_id)) as file:
            yield file

    def _frames(self, file: BinaryIO, job: VideoJob, head: Head, segment: Segment) -> Iterator[Frame]:
        shown = printable(without_query(job.video))
        frames = iter(read_frames(file, head, segment, shown, self._bounds))
        while True:
            try:
                with self._slot.life.decoding():
                    frame = next(frames, None)
            except TimeUp as exc:  # another attempt would take as long
                raise ImageTooLarge(f"A frame of {shown} was not decoded in time; send a plainer film.") from exc
            if frame is None:
                return
            yield frame


def failure(film_id: str, made: Plan, numbers: Sequence[int], why: str) -> VideoFailed:
    """What a film ends in of whose segments some have failed, the first of them for the reason `why`."""
    first, others = made.segments[numbers[0]], f" and {len(numbers) - 1} others" if len(numbers) > 1 else ""
    return VideoFailed(
        f"Segment {numbers[0]}{others} of {len(made.segments)} of film {film_id} failed, from {first.times_s[0]:g} s "
        f"on: {why.rstrip('.')}; the rest is kept at {made.joined['keypoints']['url']}; retry the job, "
        "and only these are done again."
    )


def result_of(
    film_id: str, job: VideoJob, made: Plan, overlay: Optional[Overlay], slot: Slot, attempt: Attempt
) -> VideoResult:
    """Everything the sender gets."""
    net = slot.net_of(job)
    skeleton = net.estimator.skeleton
    return VideoResult(
        job_id=film_id,
        video=made.video,
        model=net.model,
        skeleton=skeleton.name,
        keypoint_names=skeleton.keypoints,
        limbs=skeleton.drawn,
        segments=len(made.segments),
        seconds=round(attempt.age_s + attempt.stopwatch.seconds, 3),
        worker=str(slot.where["worker"]),
        device=str(slot.where["device"]),
        attempt=attempt.number,
        overlay=overlay,
        **made.joined,
    )


def _described(film: Film, job: VideoJob) -> Video:
    width, height = (film.height, film.width) if job.options.rotate % 180 else (film.width, film.height)
    return Video(
        path=without_query(job.video).encode("utf-8", "backslashreplace").decode(),
        width=width,
        height=height,
        format=film.format,
        codec=film.codec,
        frames=film.frames,
        duration_s=round(film.duration_s, 6),
        fps=round(film.fps, 6),
    )


def _turned(pixels: np.ndarray, job: VideoJob) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(pixels, -job.options.rotate // 90)) if job.options.rotate else pixels
