"""Milliseconds and memory of one pass, beside other runtimes, with the same weights on the same machine, in one run.

    make bench-engine       (or: python -m benchmarks.engine [--rounds 20] [--nets mobilenet_thin])

Every runtime has a process of its own, and they take turns, so that what else the machine does falls on all of them
alike. Caffe2 is measured where `make caffe2-test` has built its environment. The CMU net has random
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
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

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
#: Widths and heights of photographs as COCO has them, the frequent and the rare ones.
PHOTOGRAPHS = (
    *((640, 480), (480, 640), (640, 427), (427, 640), (640, 426), (640, 425), (426, 640), (640, 640), (500, 375)),
    *((375, 500), (640, 360), (640, 428), (500, 333), (333, 500), (640, 512), (612, 612), (640, 459), (640, 391)),
    *((640, 320), (640, 558), (640, 503), (457, 640), (512, 640), (640, 274), (640, 215), (361, 640), (587, 640)),
)
#: Their sizes at height 184, of which the widths are rounded up to the stride.
MIXED = tuple(dict.fromkeys(f"184x{-(-184 * width // height // 8) * 8}" for width, height in PHOTOGRAPHS))
#: What is measured with them.
DYNAMIC = ("ours", "ours, torch", "OpenVINO", "ONNX Runtime")
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
    passes: int
    #: Resident memory at the end of each round, in MB.
    rounds: List[float]


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
        self.resident: List[float] = []

    def step(self, size: int) -> None:
        """One pass of the size with this number."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{size}\n")
        self._child.stdin.flush()
        heard = self._hear() or dict.fromkeys(("ms", "cpu_ms", "bytes"), float("nan"))
        self.times.append(heard["ms"])
        self.used.append(heard["cpu_ms"])
        self.resident.append(heard["bytes"] / 1e6)

    def close(self, sizes: int) -> Optional[Row]:
        """End the process; what was measured, in rounds of so many `sizes`."""
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
            len(self.times),
            self.resident[sizes - 1 :: sizes],
        )

    def _hear(self) -> Optional[Dict[str, Any]]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        return json.loads(line) if line else None


def measure(directory: Path, size: str, names: List[str], rounds: int) -> List[Row]:
    """Let the runtimes take turns, after one round that does not count.

    Several sizes come shuffled, without a pause, and the turn is the next one's when all have been run.
    """
    count = len(size.split(","))
    order = np.random.default_rng(0)
    runners = []
    for name in names:  # one after the other, so that each has the machine while it loads
        runners.append(Runner(name, directory, size))
    going = [runner for runner in runners if runner.ready]
    for number in range(rounds + 1):
        sizes = order.permutation(count)
        for runner in going:
            for index in sizes:
                runner.step(int(index))
            time.sleep(_PAUSE_S)
        if number == 0:
            for runner in going:
                for measured in (runner.times, runner.used, runner.resident):
                    measured.clear()
    return [row for row in (runner.close(count) for runner in runners) if row]


def show(title: str, rows: List[Row]) -> None:
    """Print a table; every row with its ratio to ours."""
    ours = rows[0]
    print(f"\n{title}")
    columns: Tuple[str, ...] = "runtime", "ms (median)", "ms (least)", "ratio to ours", "processor ms (median)"
    mixed = len(ours.rounds) < ours.passes
    columns += ("RSS after each round, MB",) if mixed else ()
    print("|", " | ".join((*columns, "peak RSS, MB", "ratio to ours", "ready after, s")), "|")
    print("|---" * (len(columns) + 3) + "|")
    for row in rows:
        rounds = f"{', '.join(f'{megabytes:.0f}' for megabytes in row.rounds)} | " if mixed else ""
        print(
            f"| {row.name} | {row.median:.1f} | {row.least:.1f} | {row.median / ours.median:.2f} | {row.cpu:.1f} | "
            f"{rounds}{row.peak:.0f} | {row.peak / ours.peak:.2f} | {row.ready_s:.1f} |"
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
            dynamic = [one for one in names if one in DYNAMIC]
            title = f"{name} at {len(MIXED)} widths of COCO's photographs at height 184, 3 rounds"
            show(title, measure(directory, ",".join(MIXED), dynamic, 3))
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
