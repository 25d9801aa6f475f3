"""Parts of benchmarks.gpu that need no queue: the device's rates, the nets alone, the estimator, foreign runtimes."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np
import torch

from benchmarks.gpu_plan import Plan, prepared
from benchmarks.stand import photograph
from models.export import export
from models.inspect import inspect
from worker.device.gpus import memory, visible_gpus
from worker.device.pin import Device, own_batch
from worker.engine import load
from worker.engine.manifest import read_manifest
from worker.engine.net import empty_maps
from worker.engine.torch_engine import TorchNet
from worker.pose.estimator import EstimateOptions, Estimator
from worker.settings import read_settings

#: What a part of the benchmark has found, by name: numbers that later parts and the end need.
Figures = Dict[str, float]


class Row(NamedTuple):
    """The net at one batch size: images a second of it alone and with its transfers, TFLOP/s alone; bytes at their peak
    that the allocator has given out and that it has taken from the device; bytes of the device in use, by NVML."""

    batch: int
    alone: float
    filled: float
    tflops: float
    given: int
    taken: int
    used: int


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


def rates(plan: Plan, folder: Path, figures: Figures) -> Figures:
    """TFLOP/s of multiplying two square matrices, and GB/s of copying: what the device does at the clocks it has."""
    dtype = torch.float32 if plan.device == "cpu" else torch.float16
    one, other = (torch.randn(plan.matrix, plan.matrix, device=plan.device, dtype=dtype) for _ in range(2))
    spent = min(seconds(lambda: one @ other, plan.passes, plan.device) for _ in range(3))
    matrices = 2 * plan.matrix**3 / spent / 1e12
    print(f"matrices of {plan.matrix}x{plan.matrix} in {plan.precision}: {matrices:.2f} TFLOP/s")
    there = torch.empty(plan.block, dtype=torch.uint8, device=plan.device)
    here = torch.empty(plan.block, dtype=torch.uint8)
    ways = {
        "to the device": (here, there),
        "from the device": (there, here),
        "within the device": (there, there.clone()),
    }
    if plan.device != "cpu":
        pinned = here.pin_memory()
        ways.update({"to the device, pinned": (pinned, there), "from the device, pinned": (there, pinned)})
    for way, (source, target) in ways.items():
        spent = seconds(lambda s=source, t=target: t.copy_(s, non_blocking=True), plan.passes, plan.device)
        print(f"copies {way}: {plan.block / spent / 1e9:.2f} GB/s")
    return {"matrices": matrices}


def nets(plan: Plan, folder: Path, figures: Figures) -> Figures:
    """Every net at every batch size, operator by operator and as a CUDA graph; the first as a worker holds it, and
    without what its engine does for a GPU."""
    found: Figures = {"share": 0.0, "peak": _served(plan, prepared(plan.nets[0], folder))}
    for name in plan.nets:
        for mode in ("off", "graph"):
            rows = _net_rows(plan, prepared(name, folder), mode, figures["matrices"])
            if name == plan.nets[0]:
                found["share"] = max(found["share"], *(row.tflops / figures["matrices"] for row in rows))
    for name in plan.nets:
        for change in ("pad", "fuse"):
            few = plan._replace(batches=plan.compared)
            _net_rows(few, prepared(name, folder), "graph", figures["matrices"], **{change: False})
    return found


def _loaded(plan: Plan, directory: Path, mode: str = "off", **changes: bool) -> TorchNet:
    """The net with POSE_COMPILE as `mode`, and `changes` of what its engine does for a GPU."""
    manifest = read_manifest(directory)
    return TorchNet(manifest, device=plan.device, precision=plan.precision, threads=None, compile=mode, **changes)


def _served(plan: Plan, directory: Path) -> int:
    """Bytes that the allocator takes at its peak for a net as a worker holds it: warmed, and when it meets a new width;
    passes of all numbers of inputs that share one by default."""
    most = own_batch(read_settings({}), Device(next(iter(visible_gpus()), None)))
    height, width = plan.size
    net, taken = _loaded(plan, directory, "graph"), 0
    print(f"\n{directory.name} as a worker holds it, {plan.precision}, POSE_COMPILE=graph, POSE_MAX_BATCH={most}")
    for title, size in (
        ("warmed with", (height, width)),
        ("then fed with", (height, width - 64)),
    ):
        net.warm([size], most)
        peaks = _peak(plan.device)
        taken = max(taken, peaks[1])
        print(
            "{} {}x{}: {:.0f} MB given, {:.0f} MB taken, {:.0f} MB in use".format(
                title, *size, *(n / 1e6 for n in peaks)
            )
        )
    net.close()
    return taken


def _net_rows(plan: Plan, directory: Path, mode: str, matrices: float, **changes: bool) -> List[Row]:
    """The net at every batch size. It is loaded once, so a graph's memory is that of all batches up to it."""
    height, width = plan.size
    without = "".join(f", {name}={value}" for name, value in changes.items())
    print(f"\n{directory.name} at {height}x{width}, {plan.precision}, POSE_COMPILE={mode}{without}")
    print(f"{'batch':>6}{'net alone/s':>13}{'and copies/s':>14}{'TFLOP/s':>9}{'share':>7}", end="")
    print(f"{'given MB':>10}{'taken MB':>10}{'in use MB':>11}")
    flop = sum(step.flop for step in inspect(directory.name, directory.parent, plan.size).running)
    net = _loaded(plan, directory, mode, **changes)
    rows = []
    for batch in plan.batches:
        _forget_peak(plan.device)
        frames = np.random.default_rng(0).integers(0, 256, (batch, *plan.size, 3), np.uint8)
        pieces = [frames[i : i + 1] for i in range(batch)]
        maps = [empty_maps(net.manifest, 1, plan.size) for _ in range(batch)]
        with torch.inference_mode():
            ready = net.normalised(pieces)
            alone = batch / seconds(lambda ready=ready: net.module(ready), plan.passes, plan.device)
        filled = batch / seconds(lambda p=pieces, m=maps: net.fill(p, m), plan.passes, plan.device)
        row = Row(batch, alone, filled, alone * flop / 1e12, *_peak(plan.device))
        megabytes = (row.given / 1e6, row.taken / 1e6, row.used / 1e6)
        print(f"{batch:>6}{alone:>13.1f}{filled:>14.1f}{row.tflops:>9.2f}{row.tflops / matrices:>7.2f}", end="")
        print("{:>10.0f}{:>10.0f}{:>11.0f}".format(*megabytes), flush=True)
        rows.append(row)
        del ready
    net.close()
    return rows


def _forget_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> Tuple[int, int, int]:
    """Bytes of the device: the most that the allocator has given out, and taken, since its counts were reset; and what
    is in use now, by whomever, as nvidia-smi says, too."""
    if device == "cpu":
        return 0, 0, 0
    used = memory(visible_gpus()[0].uuid)
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), used.used if used else 0


def estimator(plan: Plan, folder: Path, figures: Figures) -> Figures:
    """Images a second of one process that does nothing but estimate, without files and queue."""
    image = cv2.imread(str(photograph(folder)))
    default = own_batch(read_settings({}), Device(next(iter(visible_gpus()), None)))
    net = load(prepared(plan.queued[0], folder), device=plan.device, precision=plan.precision)
    stated, offset = net.manifest.input, net.manifest.heatmaps.offset
    estimating = Estimator(net, stride=stated.stride, pad_value=stated.pad_value, offset=offset)
    options = EstimateOptions(target_height=plan.size[0])
    for batch in sorted({1, default}):
        found = estimating.estimate([image] * batch, options)
        spent = seconds(lambda images=[image] * batch: estimating.estimate(images, options), plan.passes, plan.device)
        people = len(found[0].people.keypoints)
        print(f"estimator, {batch} images of 640x480 at a time: {batch / spent:.1f}/s, {people} people in each")
    net.close()
    return {}


def foreign(plan: Plan, folder: Path, figures: Figures) -> Figures:
    """What other runtimes make of the first net, those that are there; each in turn, for one may fail."""
    directory = prepared(plan.nets[0], folder)
    shape = (plan.foreign_batch, 3, *plan.size)
    batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for title, make in _runtimes(plan, directory, batch):
        try:
            start = time.perf_counter()
            with torch.inference_mode():
                run = make()
                run()
                ready = time.perf_counter() - start
                rate = len(batch) / seconds(run, plan.passes, plan.device)
        except Exception as exc:  # each has errors of its own
            print(f"{title}: does not run here ({f'{type(exc).__name__}: {exc}'.splitlines()[0][:200]})", flush=True)
        else:
            print(f"{title}: {rate:.1f} images/s at batch {len(batch)}, ready after {ready:.1f} s", flush=True)
    return {}


def _runtimes(plan: Plan, directory: Path, batch: np.ndarray) -> Iterator[Tuple[str, Callable[[], Callable[[], Any]]]]:
    """Runtimes by name, each as what makes a function that makes one pass on the device."""
    if importlib.util.find_spec("onnxruntime") is None:
        print("ONNX Runtime: not installed")
    else:
        import onnxruntime

        for provider in plan.providers:
            if provider in onnxruntime.get_available_providers():
                yield f"ONNX Runtime, {provider}", lambda name=provider: _onnxruntime(name, plan, directory, batch)
            else:
                print(f"ONNX Runtime, {provider}: not in this build")
    words = ", ".join(f"{name}={value}" for name, value in plan.compiled.items())
    yield f"torch.compile, {plan.precision}, {words}", lambda: _compiled(plan, directory, batch)


def _compiled(plan: Plan, directory: Path, batch: np.ndarray) -> Callable[[], Any]:
    net = _loaded(plan, directory, fuse=False)  # the compiler has kernels of its own
    module: Any = torch.compile(net.module, **plan.compiled)
    dtype = torch.float32 if plan.device == "cpu" else torch.float16
    given = torch.from_numpy(batch).to(plan.device, dtype).contiguous(memory_format=torch.channels_last)
    return lambda: module(given)


def _onnxruntime(provider: str, plan: Plan, directory: Path, batch: np.ndarray) -> Callable[[], Any]:
    """A pass of ONNX Runtime, its input and outputs on the device: fp32, with TF32 by CUDA and fp16 by TensorRT."""
    import onnxruntime

    options = {"trt_fp16_enable": "1"} if provider.startswith("Tensorrt") else {}
    model = export(read_manifest(directory))
    session = onnxruntime.InferenceSession(model, providers=[(provider, options)])
    where: Optional[str] = "cpu" if plan.device == "cpu" else "cuda"
    bound = session.io_binding()
    bound.bind_ortvalue_input(session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(batch, where, 0))
    for output in session.get_outputs():
        bound.bind_output(output.name, where)
    if provider not in session.get_providers():
        raise RuntimeError(f"it took {', '.join(session.get_providers())} instead")
    return lambda: session.run_with_iobinding(bound)
