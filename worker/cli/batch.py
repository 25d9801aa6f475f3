"""Images and films through the queue, a bounded number at a time; each goes to the writers as it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from worker.cli.paths import is_film
from worker.cli.progress import FilmProgress
from worker.cli.writers import Done, Writer
from worker.client import IN_FLIGHT, PoseClient
from worker.client.find import Found, is_glob
from worker.client.handle import Handle
from worker.client.outcome import AnyOutcome
from worker.errors import ImageError, ImageNotFound, InvalidRequest, PoseError
from worker.files import printable
from worker.video_contract import VideoResult

if TYPE_CHECKING:
    from worker.cli.track import Track


@dataclass
class BatchSummary:
    """What became of a batch: images and films that are done, frames of these, and people in all."""

    done: int = 0
    films: int = 0
    frames: int = 0
    people: int = 0
    failures: List[Tuple[str, str, str]] = field(default_factory=list)  # path, error type, sentence

    def __str__(self) -> str:
        films = f"{self.films} films of {self.frames} frames, " if self.films else ""
        images = f"{self.done} images, " if self.done or not self.films else ""
        return f"{images}{films}{self.people} people, {len(self.failures)} failed"


@dataclass
class Batch:
    """Submits images and films, a bounded number at a time, and hands each to the writers as it ends.

    Args:
        client: where to submit.
        writers: what takes them; they are closed when the batch has ended, in whichever way.
        arguments: the images' options, and what else :meth:`PoseClient.submit` takes.
        idle_timeout_s: seconds without any job ending, or a film getting further, after which those in flight count as
            failed.
        check: called while waiting; raises to end the batch, as when a local worker has died.
        track: follows people over the images, which are then handed on in the order in which they were submitted.
        film_arguments: as `arguments`, of films.
        all_films: whether all are films, whatever they are called.
        tell: called with a line that says how far a film is.
    """

    client: PoseClient
    writers: Sequence[Writer]
    arguments: Dict[str, Any]
    idle_timeout_s: float
    check: Callable[[], None] = lambda: None
    track: Optional[Track] = None
    film_arguments: Dict[str, Any] = field(default_factory=dict)
    all_films: bool = False
    tell: Callable[[str], None] = lambda _: None
    summary: BatchSummary = field(default_factory=BatchSummary)
    #: Jobs that are not settled, in the order of their submission; which are films; and those that have ended.
    _open: Dict[str, Found] = field(default_factory=dict)
    _films: Set[str] = field(default_factory=set)
    _ended: Dict[str, AnyOutcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._progress = FilmProgress(self.client, self.tell)

    def run(self, images: Iterator[Found], progress: Callable[[BatchSummary], None]) -> BatchSummary:
        """Work through `images`, and films among them; `progress` is called after each one that ended."""
        jobs = self._submitted(images, progress)
        waits: Dict[str, Any] = {"in_flight": IN_FLIGHT, "timeout": self.idle_timeout_s, "check": self._look}
        try:
            while True:
                try:
                    for job, outcome in self.client.as_completed(jobs, **waits):
                        self._ended[job.id] = outcome
                        for job_id in self._ready():
                            self._settle(self._open.pop(job_id), job_id, self._ended.pop(job_id))
                            progress(self.summary)
                    return self.summary
                except TimeoutError:
                    self._give_up(progress)
        finally:
            for writer in self.writers:
                writer.close()

    def _look(self) -> bool:
        self.check()
        return self._progress.look()

    def _submitted(self, images: Iterator[Found], progress: Callable[[BatchSummary], None]) -> Iterator[Handle[Any]]:
        for found in images:
            try:
                if is_glob(found.path):
                    raise ImageNotFound(f"No file matches {found.path!r}; check the pattern.")
                job = self._submit(found)
            except (ImageError, InvalidRequest) as exc:  # of one that was to be sent with its job, or an odd film
                self._fail(found, exc)
                progress(self.summary)
                continue
            self._open[job.id] = found
            yield job

    def _submit(self, found: Found) -> Handle[Any]:
        if not self.all_films and not is_film(found.path):
            return self.client.submit(found.path, **self.arguments)
        film = self.client.submit_video(found.path, **self.film_arguments)
        self._films.add(film.id)
        self._progress.add(film.id, found.name)
        return film

    def _ready(self) -> List[str]:
        """Jobs that have ended and whose turn it is: at once, or, of images in order, after all before them."""
        if self.track is None:
            return list(self._ended)
        ready, in_turn = [], True
        for job_id in self._open:
            is_image, has_ended = job_id not in self._films, job_id in self._ended
            in_turn = in_turn and (has_ended or not is_image)
            if has_ended and (in_turn or not is_image):
                ready.append(job_id)
        return ready

    def _settle(self, found: Found, job_id: str, outcome: AnyOutcome) -> None:
        """Hand on what a job ended in, then delete it from the result backend: nobody else knows its id."""
        ids = None
        self._progress.remove(job_id)
        if job_id in self._films:
            self._films.discard(job_id)
        elif self.track is not None and not isinstance(outcome, VideoResult):
            outcome, ids = self.track.follow(outcome)
        try:
            if isinstance(outcome, Exception):
                raise outcome
            stored = {name: getattr(outcome, name, None) for name in ("overlay", "maps", "keypoints")}
            kept = {name: self.client.fetch(one, job_id) for name, one in stored.items() if one is not None}
            done = Done(
                found.path, found.name, outcome, kept.get("overlay"), kept.get("maps"), ids, kept.get("keypoints")
            )
            for writer in self.writers:
                writer.add(done)
            self._count(outcome)
        except (PoseError, OSError) as exc:
            self._fail(found, exc)
        self.client.discard(job_id, None if isinstance(outcome, Exception) else outcome)

    def _count(self, result: Any) -> None:
        if isinstance(result, VideoResult):
            self.summary.films += 1
            self.summary.frames += result.frames
            self.summary.people += len(result.tracks) or result.most_people
        else:
            self.summary.done += 1
            self.summary.people += len(result.people)

    def _fail(self, found: Found, exc: Exception) -> None:
        self.summary.failures.append((found.path, type(exc).__name__, str(exc)))
        for writer in self.writers:
            writer.add(Done(found.path, found.name, exc))

    def _give_up(self, progress: Callable[[BatchSummary], None]) -> None:
        for job_id, found in self._open.items():
            if job_id in self._ended:
                self._settle(found, job_id, self._ended.pop(job_id))
                progress(self.summary)
                continue
            sentence = f"No answer for {found.path!r} within {self.idle_timeout_s:g} s; is a worker running?"
            silence = TimeoutError(f"{sentence} (job {job_id})")
            self._progress.remove(job_id)
            if self.track is not None and job_id not in self._films:
                self.track.follow(silence)
            self._fail(found, silence)
            progress(self.summary)
        self._open.clear()
        self._films.clear()


def failure_table(summary: BatchSummary) -> str:
    """The failures as an aligned table of path, error and sentence."""
    rows = [("image", "error", "why"), *(tuple(map(printable, failure)) for failure in summary.failures)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
