"""Images through the queue, a bounded number at a time; each goes to the writers as it ends."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from worker.cli.writers import Done, Writer
from worker.client import IN_FLIGHT, JobHandle, Outcome, PoseClient
from worker.client.find import Found, is_glob
from worker.contract import Result
from worker.errors import ImageError, ImageNotFound, PoseError
from worker.files import printable

if TYPE_CHECKING:
    from worker.cli.track import Track


@dataclass
class BatchSummary:
    """What became of a batch."""

    done: int = 0
    people: int = 0
    failures: List[Tuple[str, str, str]] = field(default_factory=list)  # path, error type, sentence


@dataclass
class Batch:
    """Submits images, a bounded number at a time, and hands each to the writers as it ends.

    Args:
        client: where to submit.
        writers: what takes the images; they are closed when the batch has ended, in whichever way.
        arguments: the jobs' options, and what else :meth:`PoseClient.submit` takes.
        idle_timeout_s: seconds without any job ending after which those in flight count as failed.
        check: called while waiting; raises to end the batch, as when a local worker has died.
        track: follows people over the images, which are then handed on in the order in which they were submitted.
    """

    client: PoseClient
    writers: Sequence[Writer]
    arguments: Dict[str, Any]
    idle_timeout_s: float
    check: Callable[[], None] = lambda: None
    track: Optional[Track] = None
    summary: BatchSummary = field(default_factory=BatchSummary)
    #: Jobs that are not settled, in the order of their submission, and those of them that have ended.
    _open: Dict[str, Found] = field(default_factory=dict)
    _ended: Dict[str, Outcome] = field(default_factory=dict)

    def run(self, images: Iterator[Found], progress: Callable[[BatchSummary], None]) -> BatchSummary:
        """Work through `images`; `progress` is called after each one that ended."""
        jobs = self._submitted(images, progress)
        waits: Dict[str, Any] = {"in_flight": IN_FLIGHT, "timeout": self.idle_timeout_s, "check": self.check}
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

    def _submitted(self, images: Iterator[Found], progress: Callable[[BatchSummary], None]) -> Iterator[JobHandle]:
        for found in images:
            if is_glob(found.path):
                self._fail(found, ImageNotFound(f"No file matches {found.path!r}; check the pattern."))
                progress(self.summary)
                continue
            try:
                job = self.client.submit(found.path, **self.arguments)
            except ImageError as exc:  # of one that was to be sent with its job
                self._fail(found, exc)
                progress(self.summary)
                continue
            self._open[job.id] = found
            yield job

    def _ready(self) -> List[str]:
        """Jobs that have ended and whose turn it is: at once, or after all that were submitted before."""
        if self.track is None:
            return list(self._ended)
        return list(itertools.takewhile(self._ended.__contains__, self._open))

    def _settle(self, found: Found, job_id: str, outcome: Outcome) -> None:
        """Hand on what a job ended in, then delete it from the result backend: nobody else knows its id."""
        outcome, ids = (outcome, None) if self.track is None else self.track.follow(outcome)
        try:
            if isinstance(outcome, Exception):
                raise outcome
            kept = (outcome.overlay, outcome.maps)
            picture, maps = (None if one is None else self.client.fetch(one, job_id) for one in kept)
            done = Done(found.path, found.name, outcome, picture, maps, ids)
            for writer in self.writers:
                writer.add(done)
            self.summary.done += 1
            self.summary.people += len(outcome.people)
        except (PoseError, OSError) as exc:
            self._fail(found, exc)
        self.client.discard(job_id, outcome if isinstance(outcome, Result) else None)

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
            if self.track is not None:
                self.track.follow(silence)
            self._fail(found, silence)
            progress(self.summary)
        self._open.clear()


def failure_table(summary: BatchSummary) -> str:
    """The failures as an aligned table of path, error and sentence."""
    rows = [("image", "error", "why"), *(tuple(map(printable, failure)) for failure in summary.failures)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
