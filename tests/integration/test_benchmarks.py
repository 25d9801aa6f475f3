"""What measures on a GPU runs from end to end, and says in a sentence where there is none to measure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
