"""``python -m worker submit``: images and films through the queue, files out."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Tuple

import click

from worker.children import interruptible
from worker.cli import options
from worker.cli.deployment import deployment
from worker.cli.paths import is_film, searched
from worker.contract import parse_job

if TYPE_CHECKING:
    from worker.cli.batch import BatchSummary
    from worker.cli.track import Track
    from worker.cli.writers import Writer

#: Options of the command line that are options of the job's overlay.
_STYLE = ("background", "alpha", "thickness", "render_threshold", "colors", "quality")
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--ext", help="File extensions to look for in directories, e.g. jpg,png.  [default: all that are read]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="out", show_default=True)
@click.option("--report", type=_FILE, help="Also write a page to look at, e.g. report.html.")
@click.option("--coco", type=_FILE, help="Also write all people as COCO keypoint results, e.g. results.json.")
@click.option("--csv", "table", type=_FILE, help="Also write all people as a table, a row for each, e.g. people.csv.")
@click.option(
    "--keypoint-order",
    type=click.Choice(["COCO-18", "BODY_25", "MPI_15", "COCO-17", "COCO-133"]),
    help="Of the keypoints files.  [default: the net's own]",
)
@click.option(
    "--keypoint-scale",
    type=click.Choice(["0", "3", "4"]),
    default="0",
    show_default=True,
    help="Positions in pixels (0), from 0 to 1 (3) or from -1 to 1 (4).",
)
@options.estimation
@click.option("--model", help="The net, if the workers serve several.")
@click.option("--hand", is_flag=True, help="Also find hands, if the workers have a net of them.")
@click.option("--face", is_flag=True, help="Also find faces, likewise.")
@click.option(
    "--rotate", type=int, help="Turn images by 90, 180 or 270 degrees clockwise first, for cameras that hang otherwise."
)
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
@options.film
@click.option(
    "--track/--no-track",
    default=None,
    help="Images are frames in order: the same person gets the same person_id. Films are tracked unless --no-track is "
    "said.",
)
@click.option(
    "--fps", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True, help="Of images, with --track."
)
@click.option(
    "--smooth",
    type=click.FloatRange(0, min_open=True),
    help="With --track, or of films: calmer joints; the cutoff frequency in Hz of a joint at rest, e.g. 1.",
)
@click.option("--upload", is_flag=True, help="Send the files with the jobs: workers need not see this machine's disk.")
@click.option("--priority", type=click.IntRange(0, 9), help="Of the jobs; with Redis 0 goes first, with RabbitMQ 9.")
@options.local
@options.timeout
def submit(
    paths: Tuple[str, ...],
    ext: Optional[str],
    out: Path,
    report: Optional[Path],
    coco: Optional[Path],
    table: Optional[Path],
    keypoint_order: Optional[str],
    keypoint_scale: str,
    video: bool,
    formats: Tuple[str, ...],
    track: Optional[bool],
    fps: float,
    smooth: Optional[float],
    no_overlay: bool,
    upload: bool,
    local: bool,
    timeout: float,
    priority: Optional[int],
    **given: Any,
) -> None:
    """Send images and films through the queue; write keypoints and rendered pictures and films.

    PATH is a file, a directory (searched with its subdirectories) or a quoted glob such as 'in/**/*.png'. Of an image,
    the keypoints are OpenPose JSON; of a film, JSON Lines, a line a frame.
    Without a configured broker, or with --local, a Redis and a worker run on this machine while the command runs.
    The exit status is 0 only if every image and film succeeded.
    """
    film_options = {"track": False if track is False else None, "smooth": smooth}
    film_options.update((name, given.pop(name)) for name in ("every", "start_s", "end_s", "max_frames"))
    job = _options(given, overlay=not no_overlay)
    film_job = {**job, **{name: value for name, value in film_options.items() if value is not None}}
    films = [path for path in paths if video or is_film(path)]
    if smooth is not None and not track and (track is False or len(films) < len(paths)):
        raise click.UsageError("--smooth needs to know who is who from image to image; say --track, too.")
    # Wrong options are refused before anything is started.
    parse_job("-", job)
    if films:
        from worker.video_contract import VideoJob

        parse_job("-", film_job, kind=VideoJob)
    unit = "films" if len(films) == len(paths) else "images"
    with interruptible(), deployment(local) as (client, check), _progress(unit) as (progress, tell):
        # Here, and not above: a local worker has been started by now, and starts meanwhile.
        from worker.cli.batch import Batch, failure_table
        from worker.cli.film_files import FilmFiles
        from worker.cli.writers import CocoFile, CsvFile, OpenPoseFiles
        from worker.client.find import find_images

        writers: List[Writer] = [OpenPoseFiles(out, order=keypoint_order, keypoint_scale=int(keypoint_scale))]
        writers += [CocoFile(coco)] if coco else []
        writers += [CsvFile(table)] if table else []
        writers += [FilmFiles(out, formats, order=keypoint_order, keypoint_scale=int(keypoint_scale))]
        writers += [_report(report, out)] if report else []
        sent = {"priority": priority or 0, "upload": upload}
        batch = Batch(
            client,
            writers,
            {**job, **sent},
            idle_timeout_s=timeout,
            check=check,
            track=_track(fps, smooth) if track else None,
            film_arguments={**film_job, **sent},
            all_films=video,
            tell=tell,
        )
        summary = batch.run(find_images(paths, ext.split(",") if ext else searched(video)), progress)
    where = ", ".join(str(path) for path in (f"{out}/", coco, table, report) if path)
    click.echo(f"{summary}; written to {where}")
    if summary.failures:
        click.echo(failure_table(summary), err=True)
        sys.exit(1)


def _options(given: Dict[str, Any], *, overlay: bool) -> Dict[str, Any]:
    """The job's options out of those of the command line."""
    chosen = {name: value for name, value in given.items() if value is not None and value is not False}
    parts = [part for flag, part in (("hand", "hands"), ("face", "face")) if chosen.pop(flag, False)]
    if parts:
        chosen["parts"] = ["body", *parts]
    style = {name: chosen.pop(name) for name in _STYLE if name in chosen}
    return {**chosen, "overlay": (style or True) if overlay else False}


def _report(path: Path, out: Path) -> Writer:
    from worker.cli.report import Report

    return Report(path, films=out)


def _track(fps: float, smooth: Optional[float]) -> Track:
    from worker.cli.track import Track  # brings lap, which this command alone needs

    return Track(fps, smooth)


@contextlib.contextmanager
def _progress(unit: str) -> Iterator[Tuple[Callable[[BatchSummary], None], Callable[[str], None]]]:
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", desc="waiting for a worker", disable=None) as bar:

        def show(summary: BatchSummary) -> None:
            bar.set_description_str("poses", refresh=False)
            bar.set_postfix(failed=len(summary.failures), refresh=False)
            bar.update()

        yield show, bar.set_description_str
