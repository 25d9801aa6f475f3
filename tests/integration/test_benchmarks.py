"""What measures on a GPU runs from end to end, and says in a sentence where there is none to measure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from benchmarks import charts
from benchmarks.gpu import reached
from tests.support import ROOT, clean_environ


def _run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    environment = {**clean_environ(), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.long
@pytest.mark.queue
@pytest.mark.timeout(250)
def test_everything_is_measured_in_one_call(thin_net: Path, samples: Path) -> None:
    done = _run("--dry", "--skip-tests")
    assert done.returncode == 0, done.stderr
    for line in (
        r"device: a dry run on the CPU, \d+ cores",
        r"matrices of 256x256 in fp32: [\d.]+ TFLOP/s",
        r"mobilenet_thin at 64x96, fp32, POSE_COMPILE=graph",
        r"     2( +[\d.]+){5}",
        r"estimator, 1 images of 640x480 at a time: [\d.]+/s",
        r"queue, mobilenet_thin: [\d.]+/s with a picture, [\d.]+/s with keypoints only, 1.0 frames a pass",
        r". images/s through the queue \d+, to reach 300: ratio [\d.]+",
    ):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), f"{line} is not in:\n{done.stdout}"


def test_a_machine_without_a_gpu_is_told_in_a_sentence() -> None:
    done = _run()
    assert done.returncode == 0
    assert re.fullmatch(r"gpu-bench: there is no GPU to measure here, for [^.\n]+\.\n", done.stdout)
    assert done.stderr == ""


def test_ratios_say_how_much_of_what_was_to_be_reached_is() -> None:
    good, bad = reached(0.6, 450, 300_000_000), reached(0.25, 150, 1_200_000_000)
    assert [line[0] + line[line.index("ratio") :] for line in good] == ["✓ratio 1.20", "✓ratio 1.50", "✓ratio 2.00"]
    assert [line[0] + line[line.index("ratio") :] for line in bad] == ["✗ratio 0.50", "✗ratio 0.50", "✗ratio 0.50"]


def test_charts_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="benchmarks/requirements-charts.txt is not installed")
    points = [charts.Point(100, 0.2, "fast", True), charts.Point(300, 0.1, "slow", False)]
    points += [charts.Point(400, 0.3, "best", False)]
    assert [point.label for point in charts.frontier(points)] == ["fast", "best"]
    charts.accuracy(points, tmp_path / "accuracy.png")
    charts.fleet([charts.Load(1, 2.4, 2.5, 4, 6), charts.Load(2, 4.7, 5, 4, 5)], 400, tmp_path / "fleet.png")
    for name, width in (("accuracy.png", 960), ("fleet.png", 1080)):
        picture = cv2.imread(str(tmp_path / name))
        assert picture.shape[1] == width
        assert picture.std() > 10  # not one colour


def test_without_matplotlib_a_chart_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"^matplotlib.* is not installed; run: .*benchmarks/requirements-charts.txt$"):
        charts.accuracy([charts.Point(100, 0.2, "fast", True)], tmp_path / "accuracy.png")
