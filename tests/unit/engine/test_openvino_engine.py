"""The engine for CPUs: what it is chosen for, what it refuses, and memory that sizes do not fill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.nets import write_pose_net
from worker.engine import load
from worker.errors import ModelError

openvino = pytest.importorskip("openvino")
FRAMES = np.random.default_rng(1).integers(0, 256, (2, 24, 16, 3), np.uint8)
_CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(("precision", "capability", "most"), [("bf16", "BF16", 0.05), ("fp16", "FP16", 0.01)])
def test_a_lower_precision_is_used_where_the_cpu_has_it(
    precision: str, capability: str, most: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = write_pose_net(tmp_path / "small", mean=(128.0, 128.0, 128.0), scale=1 / 255)
    exact, net = load(directory, engine="openvino"), load(directory, engine="openvino", precision=precision)
    refused = f"This CPU has no instructions for {precision}; small runs in fp32."
    has = capability in _CAPABILITIES
    assert (net.precision, caplog.messages) == ((precision, []) if has else ("fp32", [refused]))
    off = max(np.abs(near - far).max() for near, far in zip(net(FRAMES), exact(FRAMES)))
    assert (0 < off < most) if has else off == 0


def test_a_precision_that_the_cpu_lacks_runs_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Old(openvino.Core):
        def get_property(self, *name: str) -> object:
            return ["FP32"] if name[-1] == "OPTIMIZATION_CAPABILITIES" else super().get_property(*name)

    monkeypatch.setattr(openvino, "Core", Old)
    assert load(write_pose_net(tmp_path / "small"), engine="openvino", precision="bf16").precision == "fp32"
    assert caplog.messages == ["This CPU has no instructions for bf16; small runs in fp32."]


def test_what_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write_pose_net(tmp_path / "small")
    with pytest.raises(ModelError, match=r"OpenVINO runs nets on a CPU only, not on cuda:0; set POSE_ENGINE=torch\."):
        load(directory, engine="openvino", device="cuda:0")
    with pytest.raises(ModelError, match="no precision 'int8'"):
        load(directory, engine="openvino", precision="int8")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"OpenVINO cannot be loaded here \(.*\); pip install openvino, or set POSE_"):
        load(directory, engine="openvino")


def test_torch_is_not_loaded(tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "small")
    code = "import sys, worker.engine as e; e.load(sys.argv[1], engine='openvino'); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


_SIZES = """
import json, sys
import numpy as np
from worker.engine import load

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

net = load(sys.argv[1], engine="openvino", threads=1)
sizes = [(8 * (8 + i % 15), 8 * (8 + i // 15)) for i in range(300)]
np.random.default_rng(0).shuffle(sizes)
marks = []
for number, (height, width) in enumerate(sizes):
    net(np.zeros((1, height, width, 3), np.uint8))
    if number % 100 == 99:
        marks.append(resident())
print(json.dumps(marks))
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_sizes(thin_net: Path) -> None:
    """300 sizes: after the first hundred there is nothing more to keep."""
    command = [sys.executable, "-c", _SIZES, str(thin_net)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    first, *_, last = json.loads(done.stdout)
    assert last - first < 60e6, (first, last)
