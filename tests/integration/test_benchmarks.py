"""What measures on a GPU runs from end to end, and says in a sentence where there is none to measure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from benchmarks import charts
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
        r"copies within the device: [\d.]+ GB/s",
        r"     2( +[\d.]+){7}",
        r"estimator, 1 images of 640x480 at a time: [\d.]+/s, 2 people in each",
        r"queue, mobilenet_thin, one shape, one client, 1 at once: [\d.]+/s, [\d.]+ frames a pass, 2.0 people in each",
        r"queue, mobilenet_thin, mixed shapes, 2 at once: [\d.]+/s, [\d.]+ frames a pass, [\d.]+ people in each",
        r"  a job's milliseconds: decode [\d.]+, preprocess [\d.]+, net [\d.]+, associate [\d.]+, overlay [\d.]+",
        r"queue, mobilenet_thin, one job after the other: [\d.]+ ms; of it: decode [\d.]+",
        r"ONNX Runtime, CPUExecutionProvider: [\d.]+ images/s at batch 2",
        r"torch.compile, fp32, backend=eager: [\d.]+ images/s at batch 2",
        r". images/s through the queue \d+, to reach 300: ratio [\d.]+",
        r". images/s of mixed shapes \d+, to reach 240: ratio [\d.]+",
    ):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), f"{line} is not in:\n{done.stdout}"
    assert done.stderr == ""


def test_a_machine_without_a_gpu_is_told_in_a_sentence() -> None:
    done = _run()
    assert done.returncode == 0
    assert re.fullmatch(r"gpu-bench: there is no GPU to measure here, for [^.\n]+\.\n", done.stdout)
    assert done.stderr == ""


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
