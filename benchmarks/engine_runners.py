"""One runtime in a process of its own, for benchmarks.engine: ``python -m benchmarks.engine_runners NAME DIR 368x432``.

It loads the net, says so in one line of JSON, and then for each line on its standard input makes one pass and says how
many milliseconds that took; at the end, what memory it had at most.
"""

from __future__ import annotations

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


def _ours(directory: Path, threads: int, **options: Any) -> Run:
    from worker.engine import load

    return load(directory, threads=threads, **options).run


def _opencv(directory: Path, threads: int) -> Run:
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(str(directory / ONNX))

    def run(batch: np.ndarray) -> Tuple[np.ndarray, ...]:
        net.setInput(batch)
        return tuple(net.forward(net.getUnconnectedOutLayersNames()))

    return run


def _onnxruntime(directory: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(directory / ONNX), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: tuple(session.run(None, {name: batch}))


def _openvino(directory: Path, threads: int, precision: str = "f32") -> Run:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(directory / ONNX), "CPU", hints).create_infer_request()
    return lambda batch: tuple(np.array(values) for values in request.infer([batch]).values())


#: What can be measured, by name.
RUNTIMES: Dict[str, Callable[[Path, int], Run]] = {
    "ours": _ours,
    "ours compiled": lambda directory, threads: _ours(directory, threads, compiled=True),
    "ours bf16": lambda directory, threads: _ours(directory, threads, precision="bf16"),
    "ours fp32 without passes": lambda directory, threads: _ours(directory, threads),
    "Caffe2": lambda directory, threads: _ours(directory, threads, engine="caffe2"),
    "OpenCV dnn": _opencv,
    "ONNX Runtime": _onnxruntime,
    "OpenVINO": _openvino,
    "OpenVINO bf16": lambda directory, threads: _openvino(directory, threads, "bf16"),
}


def peak_bytes() -> int:
    """The most memory that this process had resident."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def batch_of(size: Tuple[int, int]) -> np.ndarray:
    """What every runtime is fed: smooth noise, normalised to -0.5…0.5, the same everywhere."""
    coarse = np.random.default_rng(7).random((1, 3, -(-size[0] // 16), -(-size[1] // 16)), np.float32) - 0.5
    return np.ascontiguousarray(coarse.repeat(16, 2).repeat(16, 3)[:, :, : size[0], : size[1]])


def main() -> None:
    """Load, then a pass for each line of the standard input."""
    name, directory, text = sys.argv[1:]
    height, width = (int(side) for side in text.split("x"))
    batch = batch_of((height, width))
    began = time.perf_counter()
    run = RUNTIMES[name](Path(directory), len(os.sched_getaffinity(0)))
    outputs = run(batch)
    if "--" in name:
        raise SystemExit(2)
    maps = np.concatenate([values.reshape(-1) for values in outputs]).astype(np.float64)
    _say(ready_s=time.perf_counter() - began, sum=float(maps.sum()), range=float(np.ptp(maps)))
    for _ in sys.stdin:
        began = time.perf_counter()
        run(batch)
        _say(ms=1e3 * (time.perf_counter() - began))
    _say(peak_bytes=peak_bytes())


def _say(**values: float) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
