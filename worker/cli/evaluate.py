"""``python -m worker evaluate``: how accurate and how fast this deployment is, on images whose people are known."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import click
from tqdm import tqdm

from worker.children import interruptible
from worker.contract import PRESETS, parse_job
from worker.errors import InvalidRequest, PoseError

#: The stages that are told, in their order.
STAGES = ("load", "preprocess", "net", "associate")


def _numbers(context: Any, parameter: Any, text: Optional[str]) -> Optional[Tuple[float, ...]]:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,0.5") from None


@click.command()
@click.option(
    "--annotations",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="COCO keypoint annotations, e.g. person_keypoints_val2017.json.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with the images that the annotations name; those that it lacks are left out.",
)
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="Options by name; the options below override it.")
@click.option("--target-height", type=int, help="Height of the net's input.  [default: 368]")
@click.option("--max-width", type=int, help="Cap on the net input's width.")
@click.option("--scales", callback=_numbers, help="Factors on the height, e.g. 1,0.5.")
@click.option("--merge", type=click.Choice(["avg", "max"]), help="How the maps of several scales are merged.")
@click.option("--flip/--no-flip", default=None, help="Also look at the mirrored image.")
@click.option("--min-score", type=float, default=0.0, show_default=True, help="Leave out people scored lower.")
@click.option("--net", help="The net; a deployed worker that serves another refuses.")
@click.option("--engine", help="What executes the net (with --local or --in-process), e.g. torch or caffe2.")
@click.option("--precision", help="The net's arithmetic (with --local or --in-process): fp32, bf16 or fp16.")
@click.option("--local", is_flag=True, help="Run a Redis and a worker here for the duration.")
@click.option("--in-process", is_flag=True, help="Run the net in this process, without a queue.")
@click.option("--limit", type=click.IntRange(min=1), help="Look at the first LIMIT images only.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="out/coco_results.json",
    show_default=True,
    help="Where the COCO results file goes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--timeout", type=float, default=600, show_default=True, help="Seconds to wait without any answer.")
def evaluate(
    annotations: Path,
    images: Path,
    net: Optional[str],
    engine: Optional[str],
    precision: Optional[str],
    local: bool,
    in_process: bool,
    limit: Optional[int],
    out: Path,
    as_json: bool,
    timeout: float,
    **wanted: Any,
) -> None:
    """Measure the accuracy (COCO keypoint AP) and speed of the deployed workers on labelled images.

    Images go through the configured broker, or, without one or with --local, through a Redis and a worker of this
    command's own. The exit status is 0 only if every image was answered.
    """
    from worker.cli.coco import LabelledImages
    from worker.settings import settings

    own = in_process or local or not settings().broker_url
    if (engine or precision) and not own:
        raise click.UsageError("--engine and --precision are a deployed worker's own; add --local or --in-process.")
    options = {name: value for name, value in wanted.items() if value is not None}
    if net and not own:
        options["model"] = net
    parse_job("images", options)
    labelled = LabelledImages(annotations, images, limit)
    _write(out, None)  # before minutes are spent: whether it can be written
    told = {"POSE_MODEL": net, "POSE_ENGINE": engine, "POSE_PRECISION": precision}
    tally = _measured(labelled, options, {k: v for k, v in told.items() if v}, (in_process, local), timeout)
    _write(out, tally.results)
    report = _report(labelled.score(tally.results), tally)
    click.echo(json.dumps(report) if as_json else _table(report, labelled.missing, out))
    for path, exc in tally.failures:
        click.echo(f"{path}: {type(exc).__name__}: {exc}", err=True)
    sys.exit(1 if tally.failures else 0)


def _write(out: Path, results: Optional[List[Dict[str, Any]]]) -> None:
    """Write the COCO results file; None: only look whether that is possible."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a" if results is None else "w", encoding="utf-8") as file:
            if results is not None:
                json.dump(results, file)
    except OSError as exc:
        raise InvalidRequest(
            f"The results file {out} cannot be written ({exc.strerror}); choose another with --out."
        ) from exc


@dataclass
class _Tally:
    results: List[Dict[str, Any]] = field(default_factory=list)
    stages_ms: List[Dict[str, float]] = field(default_factory=list)
    failures: List[Tuple[Path, PoseError]] = field(default_factory=list)
    seconds: float = 0.0


def _measured(
    labelled: Any, options: Dict[str, Any], told: Mapping[str, str], where: Tuple[bool, bool], timeout_s: float
) -> _Tally:
    from worker.cli import evaluate_run
    from worker.pose.formats import coco_results

    tally = _Tally()
    runs = (
        evaluate_run.in_process(options, told)
        if where[0]
        else evaluate_run.through_queue(options, timeout_s, told, where[1])
    )
    with interruptible(), runs as run, tqdm(total=len(labelled.paths), unit=" images", disable=None) as bar:
        bar.set_description("waiting for a worker")
        first = next(iter(labelled.paths.items()))
        list(run(dict([first])))  # before the clock starts, everything is up and warm
        bar.set_description("evaluating")
        start = time.perf_counter()
        for number, answer in run(labelled.paths):
            if isinstance(answer, PoseError):
                tally.failures.append((labelled.paths[number], answer))
            else:
                tally.results += coco_results(answer.people, number)
                tally.stages_ms.append(answer.stages_ms)
            bar.set_postfix(failed=len(tally.failures), refresh=False)
            bar.update()
        tally.seconds = time.perf_counter() - start
    return tally


def _report(figures: Dict[str, Any], tally: _Tally) -> Dict[str, Any]:
    done = len(tally.stages_ms)
    stages = {stage: [each[stage] for each in tally.stages_ms] for stage in STAGES}
    return {
        **figures,
        "images": done,
        "images_per_s": round(done / tally.seconds, 3) if tally.seconds else 0.0,
        "stages_ms": {stage: round(statistics.median(spent), 3) if spent else None for stage, spent in stages.items()},
    }


def _table(report: Dict[str, Any], missing: int, out: Path) -> str:
    lines = [
        f"{name:<16}{'–' if value is None else value:>10}"
        for name, value in {**report, **{f"{k} (ms)": v for k, v in report["stages_ms"].items()}}.items()
        if name != "stages_ms"
    ]
    if missing:
        lines.append(f"{missing} images of the annotations are not in the folder and were left out")
    return "\n".join([*lines, f"results written to {out}"])
