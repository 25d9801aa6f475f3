"""Everything that is worth measuring on a GPU machine, in one call of under nine minutes, after the tests for GPUs.

    make gpu-bench      (or: python -m benchmarks.gpu [--dry] [--skip-tests])

In fp16, at 368×656: the device's own rates of multiplying matrices and of copying; the CMU COCO net, with weights from
a seed, and the default net, alone and with their transfers; the estimator; the queue with JPEGs of 640×480 and of
COCO's sizes, with people in them; other runtimes, where there are any. What is to be reached stands at the end. `--dry`
runs the same code on a CPU, on tiny sizes, for its own sake: its figures mean nothing.

Tests run file by file, and each part in a process of its own, with a limit: what fails or hangs takes nothing with it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import torch

from benchmarks.gpu_net import Figures, estimator, foreign, nets, rates
from benchmarks.gpu_plan import DRY, GPU, Plan
from benchmarks.gpu_queue import queue, settings
from benchmarks.stand import ROOT
from worker.children import start_child, stop_child
from worker.device.gpus import memory, visible_gpus
from worker.device.pin import Device

#: What is to be reached: share of the matrix rate, images a second through the queue with one shape and with COCO's
#: mix, bytes of device memory.
SHARE, QUEUE, MIX, MEMORY = 0.5, 300.0, 240.0, 0.6e9
#: Seconds that everything may take, and one file of the tests.
BUDGET_S, TESTS_S = 530.0, 90.0
FIGURES = "figures.json"


class Part(NamedTuple):
    """One part of the benchmark, run by itself: `run` prints, and returns what others need; `limit_s`: seconds."""

    run: Callable[..., Figures]
    limit_s: float
    words: Tuple[str, ...] = ()


def parts(plan: Plan) -> Dict[str, Part]:
    """The parts by name, in their order: what matters comes first, for time may run out."""
    first, *others = plan.queued
    return {
        "rates": Part(rates, 40),
        "nets": Part(nets, 150),
        f"queue {first}": Part(queue, 100, (first,)),
        "settings": Part(settings, 90),
        "estimator": Part(estimator, 40),
        **{f"queue {name}": Part(queue, 90, (name,)) for name in others},
        "foreign": Part(foreign, 150),
    }


def measure(names: List[str], words: List[str], folder: Path, deadline: float, limits: Dict[str, float]) -> List[str]:
    """Run the parts `names`, each in a process of its own, until the `deadline`, by time.monotonic().

    Args:
        words: of the command line, for each.
        limits: seconds of each part.

    Returns:
        A sentence for each part that did not end well.
    """
    faults = []
    for name in names:
        left = deadline - time.monotonic()
        if left < 5:
            faults.append(f"{name}: left out, for the time was up")
            continue
        print(f"\n-- {name}", flush=True)
        child = start_child([sys.executable, "-m", "benchmarks.gpu", "--part", name, str(folder), *words], cwd=ROOT)
        limit = min(left, limits[name])
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            faults.append(f"{name}: ended after {limit:.0f} s, its limit")
            stop_child(child, grace_s=0)
        else:
            if status:
                faults.append(f"{name}: ended with status {status}; what it said stands above")
    return faults


def known(folder: Path) -> Figures:
    """What the parts so far have found."""
    path = folder / FIGURES
    return json.loads(path.read_text()) if path.exists() else {}


def reached(figures: Figures) -> List[str]:
    """What was to be reached beside what was, each with a ratio of which 1 and more is good."""
    wanted = (
        ("share", f"share of the matrix rate {{:.2f}}, to reach {SHARE}", lambda share: share / SHARE),
        ("one", f"images/s through the queue {{:.0f}}, to reach {QUEUE:.0f}", lambda rate: rate / QUEUE),
        ("mixed", f"images/s of mixed shapes {{:.0f}}, to reach {MIX:.0f}", lambda rate: rate / MIX),
        (
            "peak",
            f"bytes by the allocator {{:.3g}}, to reach {MEMORY:.3g} or less",
            lambda peak: MEMORY / peak if peak else 0.0,
        ),
    )
    lines = []
    for name, title, ratio in wanted:
        if name not in figures:
            lines.append(f"? {name}: not measured")
            continue
        value = ratio(figures[name])
        lines.append(f"{'✓' if value >= 1 else '✗'} {title.format(figures[name])}: ratio {value:.2f}")
    return lines


def tested(deadline: float) -> List[str]:
    """Run the tests that need a GPU, each file by itself: one that cannot be imported takes no other with it.

    Returns:
        A sentence for each file that did not pass.
    """
    faults = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "pytest.mark.gpu" not in path.read_text():
            continue
        file = str(path.relative_to(ROOT))
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", file]
        child = start_child(command, cwd=ROOT)
        try:
            status = child.wait(max(1.0, min(TESTS_S, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            stop_child(child, grace_s=0)
            faults.append(f"{file}: ended after {TESTS_S:.0f} s, its limit")
        else:
            if status:
                faults.append(f"{file}: ended with status {status}")
    return faults


def main() -> int:
    """Test, measure, print. Returns the exit status: 1 if a test or a part has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="without a GPU, on tiny sizes: only to see that it runs")
    parser.add_argument("--skip-tests", action="store_true", help="only measure")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    plan = DRY if arguments.dry else GPU
    if arguments.part:
        return run_part(plan, *arguments.part)
    deadline = time.monotonic() + BUDGET_S
    gpus = visible_gpus()
    if not arguments.dry and not torch.cuda.is_available():
        why = f"PyTorch {torch.__version__} is built without CUDA" if gpus else "the driver shows none"
        print(f"gpu-bench: there is no GPU to measure here, for {why}.")
        return 0
    device: Any = "a dry run on the CPU" if arguments.dry else torch.cuda.get_device_name(0)
    used = memory(gpus[0].uuid) if gpus else None
    # The allocator is set as a worker's is, unless it is set already.
    for name, value in Device(gpus[0]).environment.items() if gpus and not arguments.dry else ():
        os.environ.setdefault(name, value)
    print(f"device: {device}, {len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}", flush=True)
    if used:
        print(f"device memory in use by others: {used.used / 1e9:.2f} of {used.total / 1e9:.1f} GB", flush=True)
    for words in (("models.fetch", "mobilenet_thin"), ("models.samples", "samples")):
        subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    faults = [] if arguments.skip_tests else tested(deadline)
    with tempfile.TemporaryDirectory(prefix="pose-gpu-") as folder:
        limits = {name: part.limit_s for name, part in parts(plan).items()}
        faults += measure(list(limits), ["--dry"] * arguments.dry, Path(folder), deadline, limits)
        print("\n" + "\n".join([*reached(known(Path(folder))), *faults]))
    return int(bool(faults))


def run_part(plan: Plan, name: str, folder: str) -> int:
    """Do one part, in this process, and keep what it has found for those that follow."""
    figures, part = known(Path(folder)), parts(plan)[name]
    found = part.run(plan, Path(folder), figures, *part.words)
    (Path(folder) / FIGURES).write_text(json.dumps({**figures, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
