"""What precision and engine cost in accuracy: the same images through each, as the command `evaluate` measures them.

    make bench-precision    (or: python -m benchmarks.precision [--annotations FILE] [--images DIR] [--write docs])

Runs ``python -m worker evaluate --in-process`` for each, and compares the joints of people with those in fp32. Caffe2
is measured where `make caffe2-test` has built its environment, and a precision where this machine has instructions for
it. --write puts the table into accuracy.md, between its marks, in a folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import numpy as np

from benchmarks.document import figures, put
from benchmarks.engine import CAFFE2
from benchmarks.maps import COCO, ROOT
from tests.support.agreement import agreement
from worker.cli.coco import METRICS
from worker.pose.scoring import PERSON_SCORE

#: Title, interpreter and options of each run; the first is what the others are compared with.
RUNS = (
    ("PyTorch, fp32", sys.executable, ("--precision", "fp32")),
    ("PyTorch, bf16", sys.executable, ("--precision", "bf16")),
    ("PyTorch, fp16", sys.executable, ("--precision", "fp16")),
    ("Caffe2, fp32", str(CAFFE2), ("--engine", "caffe2", "--precision", "fp32")),
)
#: Joints are the same within this share of the image's height.
_NEAR = 0.01

#: Of each image's id its people, float (n, 17, 3).
People = Dict[int, np.ndarray]


class Run(NamedTuple):
    """One engine in one precision, measured."""

    title: str
    figures: Dict[str, Any]
    people: People


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, default=COCO / "person_keypoints.json")
    parser.add_argument("--images", type=Path, default=COCO / "images")
    parser.add_argument("--limit", type=int, help="look at the first LIMIT images only")
    parser.add_argument("--write", type=Path, help="folder of accuracy.md")
    given = parser.parse_args()
    if not given.annotations.exists():
        sys.exit(f"{given.annotations} is not there; give --annotations and --images of labelled COCO images")
    heights = {image["id"]: image["height"] for image in json.loads(given.annotations.read_text())["images"]}
    limit = ("--limit", str(given.limit)) if given.limit else ()
    runs = []
    for title, python, options in RUNS:
        if not Path(python).exists():
            print(f"{title}: not measured: there is no {python}.")
            continue
        paths = ("--annotations", str(given.annotations.resolve()), "--images", str(given.images.resolve()))
        try:
            runs.append(_measured(title, [python, "-m", "worker", "evaluate", *paths, *limit, *options]))
        except subprocess.CalledProcessError as exc:
            if not runs:  # nothing to compare the others with
                raise
            print(f"{title}: not measured: {exc.stderr.strip().splitlines()[-1]}")
    lines = _table(runs, heights)
    print("\n".join(lines))
    if given.write:
        put(given.write / "accuracy.md", "precision", lines)


def _measured(title: str, command: List[str]) -> Run:
    with tempfile.TemporaryDirectory(prefix="pose-bench-") as folder:
        out = Path(folder) / "results.json"
        full = [*command, "--in-process", "--json", "--out", str(out)]
        done = subprocess.run(full, cwd=ROOT, capture_output=True, text=True, check=True)
        report, results = json.loads(done.stdout), json.loads(out.read_text())
    people: Dict[int, List[np.ndarray]] = {}
    for entry in results:
        if entry["score"] >= PERSON_SCORE:
            people.setdefault(entry["image_id"], []).append(np.reshape(entry["keypoints"], (17, 3)))
    return Run(title, {name: report[name] for name in METRICS}, {i: np.stack(found) for i, found in people.items()})


def _table(runs: List[Run], heights: Dict[int, int]) -> List[str]:
    first = runs[0]
    lines = [
        "| engine, precision | " + " | ".join(METRICS) + " | people | joints as in fp32 |",
        "|---|" + "---:|" * (2 + len(METRICS)),
    ]
    for run in runs:
        count = sum(map(len, run.people.values()))
        same = f"{_same(first.people, run.people, heights):.1%}" if run is not first else ""
        lines.append(f"| {run.title} | {figures(run.figures)} | {count} | {same} |")
    return lines


def _same(expected: People, found: People, heights: Dict[int, int]) -> float:
    """The share of expected joints that were found within _NEAR of the image's height."""
    nobody = np.zeros((0, 17, 3))
    agreeing = sum(agreement(e, found.get(i, nobody), _NEAR * heights[i])[1] for i, e in expected.items())
    return agreeing / max(1, sum(int((people[..., 2] > 0).sum()) for people in expected.values()))


if __name__ == "__main__":
    main()
