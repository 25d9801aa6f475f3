"""One runtime in a process of its own, for benchmarks.engine: ``python -m benchmarks.engine_runners NAME DIR SIZE,…``.

It loads the net, says so in one line of JSON, and then for each line on its standard input, which is the number of a
size, makes one pass and says how many milliseconds that took, of the clock and of processors, and what memory it has;
at the end, what memory it had at most.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import numpy as np

#: A normalised batch (1, 3, H, W) → heatmaps and PAFs.
Run = Callable[[np.ndarray], Tuple[np.ndarray, ...]]
#: The model for runtimes that read ONNX, beside the net's own files.
ONNX = "net.onnx"


def _ours(directory: Path, threads: int, size: Tuple[int, int], **options: Any) -> Run:
    from worker.engine import load

    net = load(directory, threads=threads, **options)
    if net.precision != options.get("precision", "fp32"):
        raise SystemExit(f"this CPU has no {options['precision']}")

    net.warm([size])
    return net.run


def _opencv(directory: Path, threads: int, size: Tuple[int, int]) -> Run:
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(str(directory / ONNX))

    def run(batch: np.ndarray) -> Tuple[np.ndarray, ...]:
        net.setInput(batch)
        return tuple(net.forward(net.getUnconnectedOutLayersNames()))

    return run


def _onnxruntime(directory: Path, threads: int, size: Tuple[int, int]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(directory / ONNX), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: tuple(session.run(None, {name: batch}))


def _openvino(directory: Path, threads: int, size: Tuple[int, int], precision: str = "f32") -> Run:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(directory / ONNX), "CPU", hints).create_infer_request()
    return lambda batch: tuple(np.array(values) for values in request.infer([batch]).values())


#: What can be measured, by name.
RUNTIMES: Dict[str, Callable[[Path, int, Tuple[int, int]], Run]] = {
    "ours": functools.partial(_ours, engine="openvino"),
    "ours, bf16": functools.partial(_ours, engine="openvino", precision="bf16"),
    "ours, torch": functools.partial(_ours, engine="torch"),
    "OpenVINO": _openvino,
    "OpenVINO bf16": functools.partial(_openvino, precision="bf16"),
    "ONNX Runtime": _onnxruntime,
    "OpenCV dnn": _opencv,
    "Caffe2": functools.partial(_ours, engine="caffe2"),
}


def resident_bytes(kind: str) -> int:
    """The memory that this process has resident: ``VmRSS``; at most, so far: ``VmHWM``."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(kind))


def activations(directory: str, height: int, width: int) -> int:
    """The most bytes that PyTorch's CPU allocator has given out at a time during one pass of one frame."""
    from torch.profiler import ProfilerActivity, profile

    from worker.engine import load

    net = load(Path(directory))
    frames = np.zeros((1, height, width, 3), np.uint8)
    net(frames)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        net(frames)
    found = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(found, key=lambda event: event.start_ns())]).max())


def batch_of(size: Tuple[int, int]) -> np.ndarray:
    """What every runtime is fed: smooth noise, normalised to -0.5…0.5, the same everywhere."""
    coarse = np.random.default_rng(7).random((1, 3, -(-size[0] // 16), -(-size[1] // 16)), np.float32) - 0.5
    return np.ascontiguousarray(coarse.repeat(16, 2).repeat(16, 3)[:, :, : size[0], : size[1]])


def main() -> None:
    """Load, then a pass for each line of the standard input."""
    name, directory, text = sys.argv[1:]
    sizes = [(int(height), int(width)) for height, width in (size.split("x") for size in text.split(","))]
    batches = [batch_of(size) for size in sizes]
    began = time.perf_counter()
    run = RUNTIMES[name](Path(directory), len(os.sched_getaffinity(0)), sizes[0])
    outputs = run(batches[0])
    maps = np.concatenate([values.reshape(-1) for values in outputs]).astype(np.float64)
    _say(ready_s=time.perf_counter() - began, sum=float(maps.sum()), range=float(np.ptp(maps)))
    for line in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        run(batches[int(line)])
        took, cpu = time.perf_counter() - began, time.process_time() - used
        _say(ms=1e3 * took, cpu_ms=1e3 * cpu, bytes=resident_bytes("VmRSS"))
    _say(peak_bytes=resident_bytes("VmHWM"))


def _say(**values: float) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
