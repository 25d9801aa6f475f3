"""Milliseconds and memory of one pass, beside other runtimes, with the same weights on the same machine, in one run.

    make bench-engine       (or: python -m benchmarks.engine [--rounds 20] [--nets mobilenet_thin])

Every runtime has a process of its own, and they take turns pass by pass, so that what else the machine does falls on
all of them alike. Caffe2 is measured where `make caffe2-test` has built its environment. The CMU net has random
weights. Then memory: what one pass of the CMU net at 368×656 takes for activations, beside what lifetimes say.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from benchmarks.engine_runners import ONNX, RUNTIMES
from models.catalog import find_entry
from models.export import export
from models.lifetimes import steps
from tests.support.cases import write_random
from worker.engine.manifest import read_manifest
from worker.engine.netdef import read_pair
from worker.engine.passes import optimise

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ROOT / ".venv-bench" / "bin" / "python"
CAFFE2 = ROOT / ".venv-caffe2" / "bin" / "python"
SIZES = {"mobilenet_thin": "368x432", "lightweight_openpose": "368x432", "cmu_coco": "368x392", "body_25": "368x392"}
#: What is measured unless --nets says more.
USUAL = ("mobilenet_thin", "cmu_coco")
#: Widths as in a folder of photographs.
MIXED = ",".join(f"184x{8 * number}" for number in range(16, 56))
#: Pause between passes, in which threads that wait busily fall asleep.
_PAUSE_S = 0.02


class Row(NamedTuple):
    """One runtime, measured."""

    name: str
    ready_s: float
    median: float
    least: float
    cpu: float
    peak: float
    checksum: float


class Runner:
    """A child process that holds one runtime."""

    def __init__(self, name: str, directory: Path, size: str) -> None:
        self.name = name
        python = {
            "Caffe2": CAFFE2,
            **dict.fromkeys(("OpenCV dnn", "ONNX Runtime", "OpenVINO", "OpenVINO bf16"), OTHERS),
        }
        command = [str(python.get(name, sys.executable)), "-m", "benchmarks.engine_runners", name, str(directory), size]
        self._child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.ready = self._hear()
        self.times: List[float] = []
        self.used: List[float] = []

    def step(self, size: int) -> None:
        """One pass of the size with this number."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{size}\n")
        self._child.stdin.flush()
        heard = self._hear() or {"ms": float("nan"), "cpu_ms": float("nan")}
        self.times.append(heard["ms"])
        self.used.append(heard["cpu_ms"])

    def close(self) -> Optional[Row]:
        """End the process; what was measured."""
        assert self._child.stdin is not None
        assert self._child.stderr is not None
        self._child.stdin.close()
        last = self._hear() if self.ready else None
        if last is None or self.ready is None:
            lines = self._child.stderr.read().strip().splitlines()
            print(f"{self.name}: not measured ({lines[-1] if lines else 'it ended'})")
        self._child.wait()
        if last is None or self.ready is None:
            return None
        return Row(
            self.name,
            self.ready["ready_s"],
            statistics.median(self.times),
            min(self.times),
            statistics.median(self.used),
            last["peak_bytes"] / 1e6,
            self.ready["sum"],
        )

    def _hear(self) -> Optional[Dict[str, Any]]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        return json.loads(line) if line else None


def measure(directory: Path, size: str, names: List[str], rounds: int) -> List[Row]:
    """Let the runtimes take turns, after one round that does not count; several sizes come shuffled."""
    count = len(size.split(","))
    order = np.random.default_rng(0)
    runners = []
    for name in names:  # one after the other, so that each has the machine while it loads
        runners.append(Runner(name, directory, size))
    going = [runner for runner in runners if runner.ready]
    for number in range(rounds + 1):
        for index in order.permutation(count):
            for runner in going:
                runner.step(int(index))
                time.sleep(_PAUSE_S)
        if number == 0:
            for runner in going:
                runner.times.clear()
                runner.used.clear()
    return [row for row in (runner.close() for runner in runners) if row]


def show(title: str, rows: List[Row]) -> None:
    """Print a table; every row with its ratio to ours."""
    ours = rows[0]
    print(f"\n{title}")
    columns = "runtime", "ms (median)", "ms (least)", "ratio to ours", "processor ms (median)"
    print("|", " | ".join((*columns, "peak RSS, MB", "ratio to ours", "ready after, s")), "|")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.median:.1f} | {row.least:.1f} | {row.median / ours.median:.2f} | {row.cpu:.1f} | "
            f"{row.peak:.0f} | {row.peak / ours.peak:.2f} | {row.ready_s:.1f} |"
        )
        if abs(row.checksum - ours.checksum) > 1e-3 * abs(ours.checksum) and "bf16" not in row.name:
            print(f"{row.name} computes something else: the maps add up to {row.checksum}, not {ours.checksum}")


def memory(directory: Path) -> None:
    """Print what activations take in one pass at 368×656, by lifetimes and as PyTorch's allocator counts."""
    size = (368, 656)
    bound = max(step.live for step in steps(optimise(read_pair(read_manifest(directory))), (1, 3, *size)))
    code = "import sys; from benchmarks.engine_runners import activations as a; print(a(sys.argv[1], 368, 656))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    measured = int(done.stdout.split()[-1])
    print(
        f"\ncmu_coco at 368x656: activations take {measured / 1e6:.1f} MB at their peak; lifetimes allow no less than "
        f"{bound / 1e6:.1f} MB; ratio {measured / bound:.3f}"
    )


def prepared(name: str, folder: Path) -> Path:
    """The net `name` in `folder`, also as ONNX; of weights from a seed, if it is one whose weights are not here."""
    directory = folder / name
    if find_entry(name).architecture:
        write_random(name, directory)
    else:
        directory.mkdir()
        for file in (ROOT / "models" / name).iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
    (directory / ONNX).write_bytes(export(read_manifest(directory)))
    return directory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="passes of a small net; the large ones make a quarter")
    parser.add_argument("--nets", nargs="+", choices=list(SIZES), default=USUAL)
    parser.add_argument("--runtimes", nargs="+", choices=list(RUNTIMES), help="only these, beside ours")
    arguments = parser.parse_args()
    names = ["ours", *(name for name in arguments.runtimes or RUNTIMES if name != "ours")]
    missing = [name for name in names if (name == "Caffe2" and not CAFFE2.exists())]
    for name in missing:
        print(f"{name}: not measured")
    names = [name for name in names if name not in missing]
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {_model()}; NumPy {np.__version__}")
    with tempfile.TemporaryDirectory(prefix="pose-bench-") as folder:
        for name in arguments.nets:
            directory = prepared(name, Path(folder))
            rounds = max(3, arguments.rounds // 4) if SIZES[name] == "368x392" else arguments.rounds
            show(f"{name} at {SIZES[name]}, {rounds} rounds", measure(directory, SIZES[name], names, rounds))
            if name == "mobilenet_thin":
                show(f"{name} at 40 widths and height 184, 3 rounds", measure(directory, MIXED, names, 3))
            if name == "cmu_coco":
                memory(directory)


def _model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    flags = next((line for line in lines if line.startswith("flags")), "")
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name}" in flags]
    return f"{model} ({', '.join(wide)})"


if __name__ == "__main__":
    main()
