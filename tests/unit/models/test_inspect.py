"""models.inspect against counts by hand."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import List

import cv2
import pytest
from click.testing import CliRunner, Result

from models.inspect import inspect, main
from tests.support import ROOT
from tests.support.nets import write_pose_net
from worker.errors import ModelError

#: Where matplotlib is optional, too.
drawing = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")


def _call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _row(text: str, title: str) -> List[str]:
    """The figures in the row that begins with `title`."""
    line = next(line for line in text.splitlines() if line.strip().startswith(title))
    return re.findall(r"[\d.]+", line.split(title, 1)[1].split(")")[-1])


def test_the_cmu_net_without_its_weights(tmp_path: Path) -> None:
    done = _call("cmu_coco", "--size", "368x392", "--models-dir", tmp_path)
    assert done.exit_code == 0, done.output
    assert _row(done.output, "Conv") == ["92", "92"]
    assert _row(done.output, "Relu") == ["80", "0"]  # each is done with its convolution
    assert _row(done.output, "operators") == ["180", "100"]
    assert "parameters: 52.3 M in 184 blobs" in done.output
    assert _row(done.output, "GFLOP") == ["289.6", "289.6"]
    # conv1_2 reads and makes 64 channels at full size; without release, every blob stays.
    assert _row(done.output, "blobs released") == [f"{2 * 64 * 368 * 392 * 4 / 1e6:.1f}"] * 2
    full, half, quarter, eighth = (368 * 392 // 4**level for level in range(4))
    front = 3 * full + 2 * 64 * full + (64 + 2 * 128) * half + (128 + 4 * 256) * quarter
    features = (256 + 512 + 512 + 256 + 128) * eighth
    stages = 2 * (3 * 128 + 512) + 57 + 5 * (185 + 2 * 6 * 128 + 57)
    everything = 4 * (front + features + stages * eighth) / 1e6
    assert _row(done.output, "nothing released") == [f"{everything:.1f}"] * 2
    assert "widest: Conv making conv1_2, 1x64x368x392" in done.output


def test_the_default_net_loses_24_convolutions_when_executed(thin_net: Path) -> None:
    done = _call("mobilenet_thin", "--size", "368x432", "--models-dir", thin_net.parent)
    assert _row(done.output, "Conv") == ["143", "119"]


@drawing
def test_a_folder_and_a_picture(tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "net")
    done = _call(directory, "--size", "64x80", "--plot", tmp_path / "live.png", "--models-dir", tmp_path / "models")
    assert done.exit_code == 0, done.output
    assert _row(done.output, "GFLOP") == ["0.0", "0.0"]
    assert f"parameters: {57 * 3 * 64 / 1e6:.1f} M in 2 blobs" in done.output
    picture = cv2.imread(str(tmp_path / "live.png"))
    assert picture.shape == (480, 1000, 3)
    assert ((picture == (14, 127, 255)).all(2).any(0)).sum() > 500  # the orange line of live bytes, from end to end


def test_flop_of_one_convolution(tmp_path: Path) -> None:
    """57 outputs of 3 × 8 × 8 products each, at 8 × 10 places."""
    found = inspect(str(write_pose_net(tmp_path / "net")), tmp_path, (64, 80))
    assert [step.flop for step in found.running] == [2 * 57 * 3 * 8 * 8 * 8 * 10]
    assert [step.live for step in found.running] == [4 * (3 * 64 * 80 + 57 * 8 * 10)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "no net in"),
        (("cmu_coco", "--size", "4x4"), "does not admit 4x4"),
        (("cmu_coco", "--size", "64"), "is not a height and a width"),
        (("cmu_coco", "--size", "0x64"), "is not a height and a width"),
        pytest.param(("cmu_coco", "--size", "64x64", "--plot", "/nowhere/a.png"), "cannot be written", marks=drawing),
        pytest.param(("cmu_coco", "--size", "64x64", "--plot", "live.docx"), "cannot be written", marks=drawing),
    ],
)
def test_what_cannot_be_done(arguments: List[str], message: str, tmp_path: Path) -> None:
    done = _call(*arguments, "--models-dir", tmp_path)
    assert done.exit_code != 0
    assert message in done.output
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert not Path("live.docx").exists()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = _call("cmu_coco", "--size", "64x64", "--plot", tmp_path / "live.png", "--models-dir", tmp_path)
    assert done.exit_code == 1
    assert "needs matplotlib, which is not installed here: pip install matplotlib" in done.output


def test_a_net_with_a_fault_says_so(tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "net")
    (directory / "init_net.pb").write_bytes((directory / "init_net.pb").read_bytes()[:-100])
    with pytest.raises(ModelError, match="truncated"):
        inspect(str(directory), tmp_path, (64, 64))


def test_it_needs_no_framework(tmp_path: Path) -> None:
    script = "import models.inspect, sys; print(sorted({'torch', 'cv2', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
