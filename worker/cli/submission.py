"""A batch of image files through the queue: found, submitted, awaited, written out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from worker.cli.outputs import Done, Output
from worker.client import IN_FLIGHT, PoseClient
from worker.client.find import Found, is_glob
from worker.client.job import JobHandle, Outcome
from worker.contract import Result
from worker.errors import ImageNotFound, PoseError
from worker.files import printable

#: Seconds between two looks at the results.
_POLL_S = 0.02


@dataclass
class Tally:
    """What became of the batch."""

    done: int = 0
    people: int = 0
    failures: List[Tuple[str, str, str]] = field(default_factory=list)  # path, error type, sentence

    def fail(self, path: str, exc: BaseException) -> None:
        """Note that the image at `path` failed with `exc`."""
        self.failures.append((path, type(exc).__name__, str(exc)))


class Batch:
    """Submits images, a bounded number at a time, and hands each to the outputs as it ends.

    Args:
        client: where to submit.
        outputs: what takes the images; they are closed when the batch has ended, in whichever way.
        arguments: the jobs' options, and what else :meth:`PoseClient.submit` takes.
        idle_timeout_s: seconds without any job ending after which those in flight count as failed.
        check: called while waiting; raises to end the batch, as when a local worker has died.
    """

    def __init__(
        self,
        client: PoseClient,
        outputs: Sequence[Output],
        arguments: Dict[str, Any],
        *,
        idle_timeout_s: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._outputs, self._arguments = client, outputs, arguments
        self._idle_timeout_s, self._check = idle_timeout_s, check
        self._open: Dict[str, Tuple[Found, JobHandle]] = {}
        self.tally = Tally()

    def run(self, images: Iterator[Found], progress: Callable[[Tally], None]) -> Tally:
        """Work through `images`; `progress` is called after each one that ended."""
        try:
            return self._run(iter(images), progress)
        finally:
            for output in self._outputs:
                output.close()

    def _run(self, images: Iterator[Found], progress: Callable[[Tally], None]) -> Tally:
        last = time.monotonic()
        while True:
            self._fill(images, progress)
            if not self._open:
                return self.tally
            ended = list(self._client.ended(self._open))
            for job_id, outcome in ended:
                found, handle = self._open.pop(job_id)
                self._settle(found, handle, outcome)
                progress(self.tally)
            if ended:
                last = time.monotonic()
            elif time.monotonic() - last > self._idle_timeout_s:
                self._give_up(progress)
            else:
                self._check()
                time.sleep(_POLL_S)

    def _fill(self, images: Iterator[Found], progress: Callable[[Tally], None]) -> None:
        while len(self._open) < IN_FLIGHT:
            found = next(images, None)
            if found is None:
                return
            if is_glob(found.path):
                self._fail(found, ImageNotFound(f"No file matches {found.path!r}; check the pattern."))
                progress(self.tally)
                continue
            handle = self._client.submit(found.path, **self._arguments)
            self._open[handle.id] = (found, handle)

    def _settle(self, found: Found, handle: JobHandle, outcome: Outcome) -> None:
        """Hand on what a job ended in, then delete it from the result backend: nobody else knows its id."""
        try:
            if isinstance(outcome, Exception):
                raise outcome
            kept = (outcome.overlay, outcome.maps)
            picture, maps = (None if one is None else self._client.fetch(one.url) for one in kept)
            done = Done(found.path, found.name, outcome, picture, maps)
            for output in self._outputs:
                output.add(done)
            self.tally.done += 1
            self.tally.people += len(outcome.people)
        except (PoseError, OSError) as exc:
            self._fail(found, exc)
        self._client.discard(handle.id, outcome if isinstance(outcome, Result) else None)

    def _fail(self, found: Found, exc: Exception) -> None:
        self.tally.fail(found.path, exc)
        for output in self._outputs:
            output.add(Done(found.path, found.name, exc))

    def _give_up(self, progress: Callable[[Tally], None]) -> None:
        for found, handle in self._open.values():
            sentence = f"No answer for {found.path!r} within {self._idle_timeout_s:g} s; is a worker running?"
            self._fail(found, TimeoutError(f"{sentence} (job {handle.id})"))
            progress(self.tally)
        self._open.clear()


def failure_table(tally: Tally) -> str:
    """The failures as an aligned table of path, error and sentence."""
    rows = [("image", "error", "why"), *(tuple(map(printable, failure)) for failure in tally.failures)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
