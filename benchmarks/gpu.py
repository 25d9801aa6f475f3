"""Everything that is worth measuring on a GPU machine, in one call, and the tests that need a GPU.

    make gpu-bench      (or: python -m benchmarks.gpu [--dry] [--skip-tests])

The CMU COCO net, with weights from a seed, at 368×656 in fp16: the device's own rate of multiplying matrices; images a
second of the net alone, of the net with its transfers, of the estimator, and through the queue with JPEGs of 640×480;
peak device memory; each beside what is to be reached. `--dry` runs the same code on a CPU, on tiny sizes, for its own
sake: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np
import torch

from benchmarks.stand import ROOT, one_worker, photograph, through
from models.inspect import inspect
from tests.support.cases import write_random
from worker.cli.local import embedded_redis
from worker.device.gpus import memory, visible_gpus
from worker.device.pin import Device, own_batch
from worker.engine import load
from worker.engine.net import empty_maps
from worker.observe.heartbeat import read_heartbeats
from worker.pose.estimator import EstimateOptions, Estimator
from worker.settings import read_settings


class Plan(NamedTuple):
    """What is measured: on a GPU, or dry."""

    device: str
    precision: str
    net: str
    size: Tuple[int, int]
    batches: Tuple[int, ...]
    passes: int
    matrix: int
    jobs: int


GPU = Plan("cuda:0", "fp16", "cmu_coco", (368, 656), (1, 2, 4, 8, 16), 20, 8192, 3000)
DRY = Plan("cpu", "fp32", "mobilenet_thin", (64, 96), (1, 2), 2, 256, 8)

#: What is to be reached: share of the matrix rate, images a second through the queue, bytes of device memory.
SHARE, QUEUE, MEMORY = 0.5, 300.0, 0.6e9


class Row(NamedTuple):
    """The net at one batch size: images a second of it alone and with its transfers, TFLOP/s alone, bytes at peak."""

    batch: int
    alone: float
    filled: float
    tflops: float
    peak: int


def seconds(run: Callable[[], Any], passes: int, device: str) -> float:
    """Seconds that one of `passes` takes, after three that are not counted."""
    for _ in range(3):
        run()
    _finish(device)
    start = time.perf_counter()
    for _ in range(passes):
        run()
    _finish(device)
    return (time.perf_counter() - start) / passes


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def matrix_rate(plan: Plan) -> float:
    """TFLOP/s of multiplying two square matrices: what the device really does, at the clocks that it has."""
    dtype = torch.float32 if plan.device == "cpu" else torch.float16
    one, other = (torch.randn(plan.matrix, plan.matrix, device=plan.device, dtype=dtype) for _ in range(2))
    spent = min(seconds(lambda: one @ other, plan.passes, plan.device) for _ in range(3))
    return float(2 * plan.matrix**3 / spent / 1e12)


def net_rows(plan: Plan, directory: Path, mode: str) -> List[Row]:
    """The net at every batch size, with POSE_COMPILE as `mode`."""
    flop = sum(step.flop for step in inspect(plan.net, directory.parent, plan.size).running)
    rows = []
    for batch in plan.batches:
        net: Any = load(directory, device=plan.device, precision=plan.precision, compile=mode)
        frames = np.random.default_rng(0).integers(0, 256, (batch, *plan.size, 3), np.uint8)
        pieces = [frames[i : i + 1] for i in range(batch)]
        maps = [empty_maps(net.manifest, 1, plan.size) for _ in range(batch)]
        _forget_peak(plan.device)
        with torch.inference_mode():
            ready = net._normalised(pieces)
            alone = batch / seconds(lambda ready=ready, net=net: net._module(ready), plan.passes, plan.device)
        filled = batch / seconds(lambda net=net, p=pieces, m=maps: net.fill(p, m), plan.passes, plan.device)
        rows.append(Row(batch, alone, filled, alone * flop / 1e12, _peak(plan.device)))
        net.close()
        del net, ready
    return rows


def _forget_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int:
    """Most bytes that the process has taken from the device since its count was reset, beside CUDA's own."""
    return int(torch.cuda.max_memory_reserved()) if device != "cpu" else 0


def estimator_rate(plan: Plan, directory: Path, image: np.ndarray, batch: int) -> float:
    """Images a second of one process that does nothing but estimate, without files and queue."""
    net = load(directory, device=plan.device, precision=plan.precision)
    manifest = net.manifest
    stride, offset = manifest.input.stride, manifest.heatmaps.offset
    estimator = Estimator(net, stride=stride, pad_value=manifest.input.pad_value, offset=offset)
    options = EstimateOptions(target_height=plan.size[0])
    rate = batch / seconds(lambda: estimator.estimate([image] * batch, options), plan.passes, plan.device)
    net.close()
    return rate


class Queue(NamedTuple):
    """Images a second through the queue with pictures and without, frames a pass, and bytes of the device that are in
    use, CUDA's own included."""

    drawn: float
    plain: float
    frames: float
    used: Optional[int]


def queue(plan: Plan, directory: Path, folder: Path) -> Queue:
    """One worker as it is started by default, fed by one client; decoding and drawing are in it."""
    variables = {
        "POSE_MODELS_DIR": directory.parent,
        "POSE_MODEL": directory.name,
        "POSE_DEVICE": plan.device,
        "POSE_PRECISION": plan.precision,
        "POSE_WARM_SIZES": "368x496" if plan.device != "cpu" else f"{plan.size[0]}x{plan.size[1]}",
    }
    image = photograph(folder)
    with embedded_redis() as url, one_worker(url, folder, name="bench", **variables) as (workers, client):
        rates = []
        for wanted in ({}, {"overlay": False}):
            options = {**wanted, "target_height": plan.size[0]}
            through(client, [image] * min(200, plan.jobs), options)
            rates.append(plan.jobs / through(client, [image] * plan.jobs, options))
        time.sleep(1.5)  # until the next heartbeat
        [report] = read_heartbeats(workers.beats)
    frames = report["net"]["frames"] / max(1, report["net"]["batches"])
    return Queue(rates[0], rates[1], frames, report["memory_used"])


def prepared(name: str, folder: Path) -> Path:
    """The net `name` in `folder`; the CMU net with weights from a seed, whose maps show nobody."""
    directory = folder / name
    if name != "cmu_coco":
        directory.symlink_to(ROOT / "models" / name)
        return directory
    return write_random(name, directory, empty=True)


def show(title: str, rows: List[Row], matrices: float) -> None:
    """Print the net's table."""
    print(f"\n{title}\n{'batch':>6}{'net alone/s':>13}{'and copies/s':>14}{'TFLOP/s':>9}{'share':>7}{'peak MB':>9}")
    for row in rows:
        share = row.tflops / matrices
        print(
            f"{row.batch:>6}{row.alone:>13.1f}{row.filled:>14.1f}{row.tflops:>9.2f}{share:>7.2f}{row.peak / 1e6:>9.0f}"
        )


def reached(share: float, rate: float, peak: int) -> List[str]:
    """What was to be reached beside what was, each with a ratio of which 1 and more is good."""
    figures = (
        (f"share of the matrix rate {share:.2f}, to reach {SHARE}", share / SHARE),
        (f"images/s through the queue {rate:.0f}, to reach {QUEUE:.0f}", rate / QUEUE),
        (f"device memory {peak / 1e9:.2f} GB, to reach {MEMORY / 1e9} or less", MEMORY / peak if peak else 0.0),
    )
    return [f"{'✓' if ratio >= 1 else '✗'} {title}: ratio {ratio:.2f}" for title, ratio in figures]


def measure(plan: Plan, folder: Path) -> None:
    """Measure and print everything."""
    default = own_batch(read_settings({}), Device(next(iter(visible_gpus()), None)))
    matrices = matrix_rate(plan)
    print(f"matrices of {plan.matrix}x{plan.matrix} in {plan.precision}: {matrices:.2f} TFLOP/s")
    directory = prepared(plan.net, folder)
    best, peak = 0.0, 0
    for mode in ("off", "graph"):
        rows = net_rows(plan, directory, mode)
        show(f"{plan.net} at {plan.size[0]}x{plan.size[1]}, {plan.precision}, POSE_COMPILE={mode}", rows, matrices)
        best = max(best, max(row.tflops for row in rows) / matrices)
        if mode == "off":
            peak = max(row.peak for row in rows if row.batch <= default)
    image = cv2.imread(str(photograph(folder)))
    for batch in (1, default):
        print(f"estimator, {batch} images of 640x480 at a time: {estimator_rate(plan, directory, image, batch):.1f}/s")
    rate = 0.0
    for name in dict.fromkeys((plan.net, "mobilenet_thin")):
        chosen = directory if name == plan.net else prepared(name, folder)
        found = queue(plan, chosen, folder)
        used = "" if found.used is None else f"; {found.used / 1e9:.2f} GB of the device in use, CUDA's own included"
        print(
            f"queue, {name}: {found.drawn:.1f}/s with a picture, {found.plain:.1f}/s with keypoints only, "
            f"{found.frames:.1f} frames a pass{used}",
            flush=True,
        )
        rate = rate or found.drawn
    print(f"\ndevice memory is what the net takes at the default batch of up to {default}, without CUDA's own")
    print("\n".join(reached(best, rate, peak)))


def main() -> int:
    """Test, measure, print. Returns the exit status: that of the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="without a GPU, on tiny sizes: only to see that it runs")
    parser.add_argument("--skip-tests", action="store_true", help="only measure")
    arguments = parser.parse_args()
    gpus = visible_gpus()
    if not arguments.dry and not torch.cuda.is_available():
        why = f"PyTorch {torch.__version__} is built without CUDA" if gpus else "the driver shows none"
        print(f"gpu-bench: there is no GPU to measure here, for {why}.")
        return 0
    plan = DRY if arguments.dry else GPU
    device: Any = "a dry run on the CPU" if arguments.dry else torch.cuda.get_device_name(0)
    used = memory(gpus[0].uuid) if gpus else None
    print(f"device: {device}, {len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}")
    if used:
        print(f"device memory in use by others: {used.used / 1e9:.2f} of {used.total / 1e9:.1f} GB")
    for words in (("models.fetch", "mobilenet_thin"), ("models.samples", "samples")):
        subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    status = 0 if arguments.skip_tests else tested()
    with tempfile.TemporaryDirectory(prefix="pose-gpu-") as folder:
        measure(plan, Path(folder))
    return status


def tested() -> int:
    """Run the tests that need a GPU, each file by itself: one that cannot be imported takes no other with it."""
    status = 0
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "pytest.mark.gpu" in path.read_text():
            words = ("-m", "pytest", "-q", "-m", "gpu", str(path.relative_to(ROOT)))
            status = subprocess.run([sys.executable, *words], cwd=ROOT).returncode or status
    return status


if __name__ == "__main__":
    sys.exit(main())
