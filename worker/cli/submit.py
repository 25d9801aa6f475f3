"""``python -m worker submit``: images through the queue, files out."""

from __future__ import annotations

import contextlib
import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import click
from tqdm import tqdm

from worker.children import interruptible
from worker.cli import options
from worker.cli.deployment import deployment
from worker.cli.writers import CocoFile, Done, OpenPoseFiles, Writer
from worker.client import IN_FLIGHT, JobHandle, Outcome, PoseClient
from worker.client.find import EXTENSIONS, Found, find_images, is_glob
from worker.contract import Result, parse_job
from worker.errors import ImageNotFound, PoseError
from worker.files import printable

if TYPE_CHECKING:
    from worker.cli.track import Track

#: Options of the command line that are options of the job's overlay.
_STYLE = ("background", "alpha", "thickness", "render_threshold", "colors", "quality")
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option(
    "--ext", default=",".join(EXTENSIONS), show_default=True, help="File extensions to look for in directories."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="out", show_default=True)
@click.option("--report", type=_FILE, help="Also write a page to look at, e.g. report.html.")
@click.option("--coco", type=_FILE, help="Also write all people as COCO keypoint results, e.g. results.json.")
@click.option("--keypoint-order", type=click.Choice(["COCO-18", "BODY_25"]), default="COCO-18", show_default=True)
@click.option(
    "--keypoint-scale",
    type=click.Choice(["0", "3", "4"]),
    default="0",
    show_default=True,
    help="Positions in pixels (0), from 0 to 1 (3) or from -1 to 1 (4).",
)
@options.estimation
@click.option("--model", help="The net, if the workers serve several.")
@click.option("--max-people", type=int, help="Keep only the best-scored people.")
@click.option("--min-score", type=float, help="Leave out people scored lower.  [default: 0.1]")
@click.option("--no-overlay", is_flag=True, help="Write keypoints only.")
@click.option("--background", type=click.Choice(["image", "black", "transparent"]), help="What is drawn on.")
@click.option("--alpha", type=float, help="Opacity of what is drawn.  [default: 0.6]")
@click.option("--thickness", type=float, help="Factor on the thickness of lines.  [default: 1]")
@click.option("--render-threshold", type=float, help="Keypoints of lower confidence are not drawn.  [default: 0.05]")
@click.option("--colors", help="keypoints, people, or some that people take in turn: #ff0000,#00ff00.")
@click.option("--quality", type=int, help="Of JPEGs, 1 to 100.  [default: 90]")
@click.option("--maps", is_flag=True, help="Also write the net's heatmaps and part affinity fields (.npz).")
@click.option("--track", is_flag=True, help="The images are frames in order: the same person gets the same person_id.")
@click.option("--fps", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True, help="With --track.")
@click.option(
    "--smooth",
    type=click.FloatRange(0, min_open=True),
    help="With --track: calmer joints; the cutoff frequency in Hz of a joint at rest, e.g. 1.",
)
@click.option("--priority", type=click.IntRange(0, 9), help="Of the jobs; with Redis 0 goes first, with RabbitMQ 9.")
@options.local
@options.timeout
def submit(
    paths: Tuple[str, ...],
    ext: str,
    out: Path,
    report: Optional[Path],
    coco: Optional[Path],
    keypoint_order: str,
    keypoint_scale: str,
    track: bool,
    fps: float,
    smooth: Optional[float],
    no_overlay: bool,
    local: bool,
    timeout: float,
    priority: Optional[int],
    **given: Any,
) -> None:
    """Send images through the queue; write keypoints (OpenPose JSON) and rendered pictures.

    PATH is a file, a directory (searched with its subdirectories) or a quoted glob such as 'in/**/*.png'.
    Without a configured broker, or with --local, a Redis and a worker run on this machine while the command runs.
    The exit status is 0 only if every image succeeded.
    """
    job = _options(given, overlay=not no_overlay)
    parse_job("-", job)  # wrong options are refused before anything is started
    if smooth is not None and not track:
        raise click.UsageError("--smooth needs to know who is who from image to image; say --track, too.")
    with interruptible(), deployment(local) as (client, check), _progress() as progress:
        writers: List[Writer] = [OpenPoseFiles(out, order=keypoint_order, keypoint_scale=int(keypoint_scale))]
        writers += [CocoFile(coco)] if coco else []
        writers += [_report(report)] if report else []
        batch = Batch(client, writers, {**job, "priority": priority or 0}, idle_timeout_s=timeout, check=check)
        batch.track = _track(fps, smooth) if track else None
        summary = batch.run(find_images(paths, ext.split(",")), progress)
    where = ", ".join(str(path) for path in (f"{out}/", coco, report) if path)
    click.echo(f"{summary.done} images, {summary.people} people, {len(summary.failures)} failed; written to {where}")
    if summary.failures:
        click.echo(failure_table(summary), err=True)
        sys.exit(1)


def _options(given: Dict[str, Any], *, overlay: bool) -> Dict[str, Any]:
    """The job's options out of those of the command line."""
    chosen = {name: value for name, value in given.items() if value is not None and value is not False}
    style = {name: chosen.pop(name) for name in _STYLE if name in chosen}
    return {**chosen, "overlay": (style or True) if overlay else False}


def _report(path: Path) -> Writer:
    from worker.cli.report import Report

    return Report(path)


def _track(fps: float, smooth: Optional[float]) -> Track:
    from worker.cli.track import Track  # brings lap, which this command alone needs

    return Track(fps, smooth)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[BatchSummary], None]]:
    with tqdm(unit=" images", desc="waiting for a worker", disable=None) as bar:

        def show(summary: BatchSummary) -> None:
            bar.set_description("poses", refresh=False)
            bar.set_postfix(failed=len(summary.failures), refresh=False)
            bar.update()

        yield show


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
            job = self.client.submit(found.path, **self.arguments)
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
