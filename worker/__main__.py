"""The command line: ``python -m worker --help``."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

import click
from tqdm import tqdm

from worker.contract import PRESETS
from worker.dead import dead
from worker.errors import PoseError, SettingsError
from worker.evaluate import evaluate
from worker.logs import last_words
from worker.processes import interruptible
from worker.settings import settings

#: What directories are searched for.
EXTENSIONS = "jpg,jpeg,png,webp,bmp,tif,tiff,gif"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Multi-person pose estimation as a queue worker."""


@main.command()
def fleet() -> None:
    """Run this machine's workers, one for each GPU, against the configured broker (POSE_BROKER_URL)."""
    from worker.fleet import run_fleet

    if not settings().broker_url:
        raise SettingsError("POSE_BROKER_URL is not set; set it to your Redis, e.g. redis://127.0.0.1:6379/0.")
    sys.exit(run_fleet(settings()))


@main.command()
@click.option("--ready", is_flag=True, help="Also fail while a worker does not consume yet, or any more.")
@click.option("--config", is_flag=True, help="Instead, tell what is wrong with the settings; starts nothing.")
@click.option("--name", default="", help="Only the worker of this name, e.g. gpu0; else all of this host.")
def check(ready: bool, config: bool, name: str) -> None:
    """Tell whether this host's workers are well: exit status 0, or 1 and why not."""
    if config:
        _check_config()
    from worker.health import faults, read_heartbeats

    folder = settings().heartbeat_dir
    reports = [one for one in read_heartbeats(folder) if not name or one["worker"].partition("@")[0] == name]
    told = [f"{one['worker']}: {fault}." for one in reports for fault in faults(one, settings(), ready=ready)] or (
        [] if reports else [f"No worker{name and ' ' + name} has a heartbeat in {folder}."]
    )
    for line in told:
        click.echo(line, err=True)
    sys.exit(1 if told else 0)


def _check_config() -> None:
    from worker.setup import wrong

    told = wrong(os.environ)
    for line in told:
        click.echo(line, err=True)
    if not told:
        click.echo("Every setting is allowed, and what it names is there.")
    sys.exit(1 if told else 0)


@main.command()
@click.option("--watch", is_flag=True, help="Go on until interrupted.")
def status(watch: bool) -> None:
    """Show every worker on every host: its device, its memory, its slots, its pace."""
    from worker.health import all_workers
    from worker.status import table

    if not settings().broker_url:
        raise SettingsError("POSE_BROKER_URL is not set; set it to your Redis, e.g. redis://127.0.0.1:6379/0.")
    while True:
        text = table(all_workers(settings()))
        if watch:
            click.clear()
        click.echo(text)
        if not watch:
            return
        time.sleep(1)


main.add_command(dead)
main.add_command(evaluate)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--ext", default=EXTENSIONS, show_default=True, help="File extensions to look for in directories.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="out", show_default=True)
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="Options by name; the options below override it.")
@click.option("--target-height", type=int, help="Height of the net's input.  [default: 368]")
@click.option("--scales", help="Factors on the height, e.g. 1,0.5.  [default: 1]")
@click.option("--merge", type=click.Choice(["avg", "max"]), help="How maps of several scales are merged.")
@click.option("--no-overlay", is_flag=True, help="Write keypoints only.")
@click.option("--local", is_flag=True, help="Run a Redis and a worker here for the duration.")
@click.option("--timeout", type=float, default=600, show_default=True, help="Seconds to wait without any answer.")
def submit(
    paths: Tuple[str, ...],
    ext: str,
    out: Path,
    preset: Optional[str],
    target_height: Optional[int],
    scales: Optional[str],
    merge: Optional[str],
    no_overlay: bool,
    local: bool,
    timeout: float,
) -> None:
    """Send images through the queue; write keypoints (OpenPose JSON) and rendered pictures.

    PATH is a file, a directory (searched with its subdirectories) or a quoted glob such as 'in/**/*.png'.
    Without a configured broker, or with --local, a Redis and a worker run on this machine while the command runs.
    The exit status is 0 only if every image succeeded.
    """
    from worker.finding import find_images
    from worker.submission import failure_table

    given = {
        "preset": preset,
        "target_height": target_height,
        "scales": None if scales is None else _numbers(scales),
        "merge": merge,
        "overlay": not no_overlay,
    }
    options = {name: value for name, value in given.items() if value is not None}
    with interruptible(), _batch(local, out, options, timeout) as batch, _progress() as progress:
        tally = batch.run(find_images(paths, ext.split(",")), progress)
    click.echo(f"{tally.done} images, {tally.people} people, {len(tally.failures)} failed; written to {out}/")
    if tally.failures:
        click.echo(failure_table(tally), err=True)
        sys.exit(1)


def _numbers(text: str) -> Tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,0.5", param_hint="--scales") from None


@contextlib.contextmanager
def _batch(local: bool, out: Path, options: Dict[str, Any], timeout: float) -> Iterator[Any]:
    """A batch against the configured broker, or against a Redis and a worker of its own."""
    from worker.client import PoseClient
    from worker.contract import parse_job
    from worker.local import local_fleet
    from worker.submission import Batch

    parse_job(str(out), options)  # wrong options are told before anything is started
    configured = settings()
    if not local and configured.broker_url:
        url, results = configured.broker_url, configured.results_url
        with PoseClient(url, result_backend=results, queue=configured.queue) as client:
            yield Batch(client, out, options, idle_timeout_s=timeout)
        return
    # The files are the user's own, read with the user's rights: the whole tree is allowed unless told otherwise.
    with (
        local_fleet({"POSE_IMAGE_ROOTS": "/", **os.environ}) as here,
        PoseClient(here.broker_url, queue=configured.queue) as client,
    ):
        yield Batch(client, out, options, idle_timeout_s=timeout, check=here.check)


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    with tqdm(unit=" images", desc="waiting for a worker", disable=None) as bar:

        def show(tally: Any) -> None:
            bar.set_description("poses", refresh=False)
            bar.set_postfix(failed=len(tally.failures), refresh=False)
            bar.update()

        yield show


def run() -> None:
    """Run the command line; expected errors end it with their sentence and status 2."""
    try:
        main()
    except PoseError as exc:
        last_words(str(exc))
        sys.exit(2)


if __name__ == "__main__":
    run()
