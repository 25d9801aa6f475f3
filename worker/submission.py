"""A batch of image files through the queue: found, submitted, awaited, written out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from worker.client import JobHandle, PoseClient
from worker.contract import Result
from worker.errors import ImageNotFound, PoseError
from worker.finding import Found, is_glob
from worker.pose.formats import openpose_json
from worker.wire import to_people

#: Jobs of one batch that are on the queue or being worked on at a time: enough to keep a rack of GPUs busy,
#: few enough that neither this process nor Redis fills up.
IN_FLIGHT = 64
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
    """Submits images, a bounded number at a time, and writes ``<name>_keypoints.json`` and ``<name>_rendered.jpg``.

    Args:
        client: where to submit.
        out: folder for the files; made as needed.
        options: the jobs' options.
        idle_timeout_s: seconds without any job ending after which those in flight count as failed.
        check: called while waiting; raises to end the batch, as when a local worker has died.
    """

    def __init__(
        self,
        client: PoseClient,
        out: Path,
        options: Dict[str, Any],
        *,
        idle_timeout_s: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._out, self._options = client, out, options
        self._idle_timeout_s, self._check = idle_timeout_s, check
        self._open: Dict[str, Tuple[Found, JobHandle]] = {}
        self.tally = Tally()

    def run(self, images: Iterator[Found], progress: Callable[[Tally], None]) -> Tally:
        """Work through `images`; `progress` is called after each one that ended."""
        images = iter(images)
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
                self.tally.fail(found.path, ImageNotFound(f"No file matches {found.path!r}; check the pattern."))
                progress(self.tally)
                continue
            handle = self._client.submit(found.path, **self._options)
            self._open[handle.id] = (found, handle)

    def _settle(self, found: Found, handle: JobHandle, outcome: Any) -> None:
        """Write out what a job ended in, then delete it from the result backend: nobody else knows its id."""
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            self._write(found, outcome)
            self.tally.done += 1
            self.tally.people += len(outcome.people)
        except (PoseError, OSError) as exc:
            self.tally.fail(found.path, exc)
        self._client.discard(handle.id, outcome if isinstance(outcome, Result) else None)

    def _write(self, found: Found, result: Result) -> None:
        target = self._out / found.name
        target.parent.mkdir(parents=True, exist_ok=True)
        document = openpose_json(to_people(result.people))
        _replace(target.with_name(f"{target.name}_keypoints.json"), json.dumps(document).encode())
        if result.overlay is not None:
            suffix = "png" if result.overlay.media_type == "image/png" else "jpg"
            picture = self._client.fetch(result.overlay.url)
            _replace(target.with_name(f"{target.name}_rendered.{suffix}"), picture)

    def _give_up(self, progress: Callable[[Tally], None]) -> None:
        for found, handle in self._open.values():
            sentence = f"No answer for {found.path!r} within {self._idle_timeout_s:g} s; is a worker running?"
            self.tally.fail(found.path, TimeoutError(f"{sentence} (job {handle.id})"))
            progress(self.tally)
        self._open.clear()


def _replace(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def failure_table(tally: Tally) -> str:
    """The failures as an aligned table of path, error and sentence."""
    head = ("image", "error", "why")
    widths = [max(len(row[i]) for row in [head, *tally.failures]) for i in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in [head, *tally.failures])
