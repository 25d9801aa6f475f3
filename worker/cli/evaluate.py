"""``python -m worker evaluate``: how accurate and how fast this deployment is, on images whose people are known."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import click
from tqdm import tqdm

from worker.children import interruptible
from worker.cli import options
from worker.contract import parse_job
from worker.errors import InvalidRequest, PoseError
from worker.files import write_whole
from worker.settings import settings

if TYPE_CHECKING:
    from worker.cli.runs import Run

#: The stages that are reported, in their order.
STAGES = ("load", "preprocess", "net", "associate")


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
@options.estimation
@click.option("--min-score", type=float, default=0.0, show_default=True, help="Leave out people scored lower.")
@click.option("--net", help="The net; a deployed worker that serves another refuses.")
@click.option("--engine", help="What executes the net (with --local or --in-process), e.g. openvino or torch.")
@click.option("--precision", help="The net's arithmetic (with --local or --in-process): fp32, bf16 or fp16.")
@options.local
@click.option("--in-process", is_flag=True, help="Run the net in this process, without a queue.")
@click.option("--limit", type=click.IntRange(min=1), help="Look at the first LIMIT images only.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="out/coco_results.json",
    show_default=True,
    help="Where the COCO results file goes.",
)
@click.option(
    "--compare",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Another run's results file of the same images: how much better this one is, and whether that is chance.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@options.timeout
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
    compare: Optional[Path],
    as_json: bool,
    timeout: float,
    **wanted: Any,
) -> None:
    """Measure the accuracy (COCO keypoint AP) and speed of the deployed workers on labelled images.

    Images go through the configured broker, or, without one or with --local, through a Redis and a worker of this
    command's own. The exit status is 0 only if every image was answered.
    """
    from worker.cli.coco import LabelledImages
    from worker.cli.compare import read_results
    from worker.cli.runs import in_this_process, through_queue

    own = in_process or local or not settings().broker_url
    if (engine or precision) and not own:
        raise click.UsageError("--engine and --precision are a deployed worker's own; add --local or --in-process.")
    job = {name: value for name, value in wanted.items() if value is not None}
    if net and not own:
        job["model"] = net
    parse_job("images", job)
    labelled = LabelledImages(annotations, images, limit)
    chosen = {"POSE_MODEL": net, "POSE_ENGINE": engine, "POSE_PRECISION": precision}
    variables = {name: value for name, value in chosen.items() if value}
    theirs = read_results(compare) if compare else None
    _write(out, None)  # before minutes are spent
    if in_process:
        runs = in_this_process(job, variables)
    else:
        runs = through_queue(job, variables, local=local, timeout_s=timeout)
    with interruptible(), runs as run:
        measured = _measure(labelled.paths, run)
    _write(out, measured.results)
    report = _report(labelled.score(measured.results), measured)
    if theirs is not None:
        compared = labelled.compare(measured.results, theirs)
        report["compared"] = {name: round(value, 4) for name, value in asdict(compared).items()}
    click.echo(json.dumps(report) if as_json else _table(report, labelled.missing, out))
    for path, exc in measured.failures:
        click.echo(f"{path}: {type(exc).__name__}: {exc}", err=True)
    sys.exit(1 if measured.failures else 0)


def _write(out: Path, results: Optional[List[Dict[str, Any]]]) -> None:
    """Write the COCO results file; None: only see whether that is possible."""
    try:
        if results is None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.open("a").close()
        else:
            write_whole(out, json.dumps(results).encode())
    except OSError as exc:
        raise InvalidRequest(
            f"The results file {out} cannot be written ({exc.strerror}); choose another with --out."
        ) from exc


@dataclass
class _Measured:
    results: List[Dict[str, Any]] = field(default_factory=list)
    stages_ms: List[Dict[str, float]] = field(default_factory=list)
    failures: List[Tuple[Path, PoseError]] = field(default_factory=list)
    seconds: float = 0.0


def _measure(paths: Dict[int, Path], run: Run) -> _Measured:
    from worker.pose.formats import coco_results

    measured = _Measured()
    with tqdm(total=len(paths), unit=" images", disable=None) as bar:
        bar.set_description("waiting for a worker")
        first = next(iter(paths.items()))
        list(run(dict([first])))  # before the clock starts, everything is up and warm
        bar.set_description("evaluating")
        start = time.perf_counter()
        for number, answer in run(paths):
            if isinstance(answer, PoseError):
                measured.failures.append((paths[number], answer))
            else:
                measured.results += coco_results(answer.people, number, answer.skeleton)
                measured.stages_ms.append(answer.stages_ms)
            bar.set_postfix(failed=len(measured.failures), refresh=False)
            bar.update()
        measured.seconds = time.perf_counter() - start
    return measured


def _report(figures: Dict[str, Any], measured: _Measured) -> Dict[str, Any]:
    done = len(measured.stages_ms)
    stages = {stage: [each[stage] for each in measured.stages_ms] for stage in STAGES}
    return {
        **figures,
        "images": done,
        "images_per_s": round(done / measured.seconds, 3) if measured.seconds else 0.0,
        "stages_ms": {stage: round(statistics.median(spent), 3) if spent else None for stage, spent in stages.items()},
    }


def _table(report: Dict[str, Any], missing: int, out: Path) -> str:
    lines = [
        f"{name:<16}{'–' if value is None else value:>10}"
        for name, value in {**report, **{f"{k} (ms)": v for k, v in report["stages_ms"].items()}}.items()
        if name not in ("stages_ms", "compared")
    ]
    if "compared" in report:
        lines.append(_verdict(report["compared"]))
    if missing:
        lines.append(f"{missing} images of the annotations are not in the folder and were left out")
    return "\n".join([*lines, f"results written to {out}"])


def _verdict(compared: Dict[str, float]) -> str:
    low, high = compared["low"], compared["high"]
    chance = ": it may be chance" if low <= 0 <= high else ""
    return f"AP is {compared['difference']:+.4f} beside the other run (95 %: {low:+.4f} to {high:+.4f}{chance})"
