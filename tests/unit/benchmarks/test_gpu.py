"""What measures a GPU goes on when a part of it fails, and feeds the worker what it says."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.gpu import measure, parts, reached
from benchmarks.gpu_plan import DRY, GPU, write_peopled
from benchmarks.gpu_queue import mixed
from tests.support import ROOT, clean_environ
from worker.engine import load
from worker.pose.geometry import plan


def test_a_part_that_fails_hangs_or_comes_too_late_takes_no_other_with_it(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    limits = {"unknown": 60.0, "rates": 60.0, "nets": 0.01, "estimator": 60.0}
    (tmp_path / "figures.json").write_text('{"before": 1.0}')
    deadline = time.monotonic() + 100
    faults = measure(["unknown", "rates", "nets"], ["--dry"], tmp_path, deadline, limits)
    assert faults == [
        "unknown: ended with status 1; what it said stands above",
        "nets: ended after 0 s, its limit",
    ]
    assert "TFLOP/s" in capfd.readouterr().out
    assert (tmp_path / "figures.json").read_text().startswith('{"before": 1.0, "matrices": ')
    late = measure(["estimator"], ["--dry"], tmp_path, time.monotonic() + 1, limits)
    assert late == ["estimator: left out, for the time was up"]


def test_every_net_is_measured_through_the_queue_and_the_first_of_them_first() -> None:
    assert list(parts(GPU)) == [
        "rates",
        "nets",
        "queue cmu_coco_people",
        "settings",
        "estimator",
        "queue cmu_coco",
        "queue mobilenet_thin",
        "foreign",
    ]
    assert list(parts(DRY)) == ["rates", "nets", "queue mobilenet_thin", "settings", "estimator", "foreign"]


def test_ratios_say_how_much_of_what_was_to_be_reached_is() -> None:
    good = reached({"share": 0.6, "one": 450, "mixed": 360, "peak": 300_000_000})
    bad = reached({"share": 0.25, "one": 150, "mixed": 120, "peak": 1_200_000_000})
    assert [line[0] + line[line.index("ratio") :].split()[-1] for line in good] == ["✓1.20", "✓1.50", "✓1.50", "✓2.00"]
    assert [line[0] + line[line.index("ratio") :].split()[-1] for line in bad] == ["✗0.50", "✗0.50", "✗0.50", "✗0.50"]
    assert reached({"share": 0.6})[1:3] == ["? one: not measured", "? mixed: not measured"]


def test_mixed_shapes_are_twenty_photographs_of_eight_widths_at_height_368(tmp_path: Path, samples: Path) -> None:
    paths = mixed(tmp_path)
    shapes = [cv2.imread(str(path)).shape[:2] for path in paths]
    at_368 = {plan(*shape, target_height=368, stride=8, offset=(0.0, 0.0)).padded_width for shape in shapes}
    assert len(paths) == 20
    assert len(at_368) == 8
    assert mixed(tmp_path) == paths  # the same order each time


@pytest.mark.long
def test_a_dry_run_measures_everything(capfd: pytest.CaptureFixture) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry", "--skip-tests"]
    assert subprocess.run(command, cwd=ROOT, env=clean_environ(), timeout=150).returncode == 0
    said = capfd.readouterr().out
    for words in ("pad=False", "fuse=False", "as a worker holds it", "POSE_WIDTH_STEP=64", "the slowest of the first"):
        assert words in said
    assert "not measured" not in said


@pytest.mark.long
def test_the_net_with_people_finds_those_of_the_thin_net_at_the_cost_of_the_cmu_net(
    tmp_path: Path, thin_net: Path, samples: Path
) -> None:
    directory = write_peopled(tmp_path / "peopled")
    picture = cv2.resize(cv2.imread(str(samples / "zidane.jpg")), (240, 184))[None]
    for found, expected in zip(load(directory)(picture), load(thin_net)(picture)):
        assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)
    assert (directory / "init_net.pb").stat().st_size > 200_000_000
