"""Record what is found in the sample photographs, for test_accuracy.py: ``python -m tests.support.record_golden``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2

from tests.support import ROOT
from worker.contract import Options
from worker.engine import load
from worker.people import from_people, to_estimate_options
from worker.pose.estimator import Estimator
from worker.pose.people import People

#: One file for each photograph, by its stem.
GOLDEN = ROOT / "tests" / "support" / "golden"


def people_in(photograph: Path, estimator: Estimator) -> People:
    """Who is found with the options that a job has if it says nothing."""
    (estimate,) = estimator.estimate([cv2.imread(str(photograph))], to_estimate_options(Options()))
    return estimate.people


def estimator_of(net_dir: Path, **how: Any) -> Estimator:
    """An estimator with the net in `net_dir`; `how` is as of :func:`worker.engine.load`."""
    net = load(net_dir, **how)
    stated = net.manifest.input
    return Estimator(net, stride=stated.stride, pad_value=stated.pad_value, offset=net.manifest.heatmaps.offset)


def main() -> None:
    """Look at every photograph and write its file, a line for each person."""
    estimator = estimator_of(ROOT / "models" / "mobilenet_thin")
    for photograph in sorted((ROOT / "samples").iterdir()):
        lines = ",\n".join(json.dumps(person.model_dump()) for person in from_people(people_in(photograph, estimator)))
        (GOLDEN / f"{photograph.stem}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
