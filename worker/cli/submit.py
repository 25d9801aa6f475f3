"""``python -m worker submit``: images through the queue, files out."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import click
from tqdm import tqdm

from worker.children import interruptible
from worker.client.find import EXTENSIONS, find_images
from worker.contract import PRESETS
from worker.settings import settings

#: Options of the command line that are options of the job's overlay.
_STYLE = ("background", "alpha", "thickness", "render_threshold", "colors", "quality")


def _numbers(context: Any, parameter: Any, text: Optional[str]) -> Optional[Tuple[float, ...]]:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,0.5") from None


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
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="Options by name; the options below override it.")
@click.option("--model", help="The net, if the workers serve several.")
@click.option("--target-height", type=int, help="Height of the net's input.  [default: 368]")
@click.option("--max-width", type=int, help="Cap on the net input's width.")
@click.option("--scales", callback=_numbers, help="Factors on the height, e.g. 1,0.5.  [default: 1]")
@click.option("--merge", type=click.Choice(["avg", "max"]), help="How maps of several scales are merged.")
@click.option("--flip/--no-flip", default=None, help="Also look at the mirrored image.")
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
@click.option("--priority", type=click.IntRange(0, 9), help="Of the jobs; with Redis 0 goes first, with RabbitMQ 9.")
@click.option("--local", is_flag=True, help="Run a Redis and a worker here for the duration.")
@click.option("--timeout", type=float, default=600, show_default=True, help="Seconds to wait without any answer.")
def submit(
    paths: Tuple[str, ...],
    ext: str,
    out: Path,
    report: Optional[Path],
    coco: Optional[Path],
    keypoint_order: str,
    keypoint_scale: str,
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
    from worker.cli.outputs import CocoFile, Files
    from worker.cli.submission import Batch, failure_table

    options = _options(given, overlay=not no_overlay)
    with interruptible(), _client(local, options) as (client, check), _progress() as progress:
        outputs: List[Any] = [Files(out, order=keypoint_order, keypoint_scale=int(keypoint_scale))]
        outputs += [CocoFile(coco)] if coco else []
        outputs += [_report(report)] if report else []
        arguments = {**options, "priority": priority or 0}
        batch = Batch(client, outputs, arguments, idle_timeout_s=timeout, check=check)
        tally = batch.run(find_images(paths, ext.split(",")), progress)
    where = ", ".join(str(path) for path in (f"{out}/", coco, report) if path)
    click.echo(f"{tally.done} images, {tally.people} people, {len(tally.failures)} failed; written to {where}")
    if tally.failures:
        click.echo(failure_table(tally), err=True)
        sys.exit(1)


def _options(given: Dict[str, Any], *, overlay: bool) -> Dict[str, Any]:
    """The job's options out of those of the command line."""
    told = {name: value for name, value in given.items() if value is not None and value is not False}
    style = {name: told.pop(name) for name in _STYLE if name in told}
    return {**told, "overlay": (style or True) if overlay else False}


def _report(path: Path) -> Any:
    from worker.cli.report import Report

    return Report(path)


@contextlib.contextmanager
def _client(local: bool, options: Dict[str, Any]) -> Iterator[Any]:
    """A client of the configured broker, or of a Redis and a worker of its own; and what tells that they are well."""
    from worker.cli.local import local_fleet
    from worker.client import PoseClient
    from worker.contract import parse_job

    parse_job("-", options)  # wrong options are told before anything is started
    configured = settings()
    told = {"queue": configured.queue, "key_prefix": configured.key_prefix}
    if not local and configured.broker_url:
        with PoseClient(configured.broker_url, result_backend=configured.results_url, **told) as client:
            yield client, lambda: None
        return
    # The files are the user's own, read with the user's rights: the whole tree is allowed unless told otherwise.
    with local_fleet({"POSE_IMAGE_ROOTS": "/", **os.environ}) as here, PoseClient(here.broker_url, **told) as client:
        yield client, here.check


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    with tqdm(unit=" images", desc="waiting for a worker", disable=None) as bar:

        def show(tally: Any) -> None:
            bar.set_description("poses", refresh=False)
            bar.set_postfix(failed=len(tally.failures), refresh=False)
            bar.update()

        yield show
