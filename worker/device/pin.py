"""Which device this worker owns."""

from __future__ import annotations

import os
import warnings

from worker.settings import Settings


def own_device(settings: Settings) -> str:
    """The torch name of the device to use: as told by POSE_DEVICE, else the first visible GPU, else the CPU."""
    if settings.device != "auto":
        return settings.device
    return "cuda:0" if _visible_gpus() else "cpu"


def own_precision(settings: Settings, device: str) -> str:
    """The arithmetic to use on `device`: as told by POSE_PRECISION, else fp16 on a GPU and fp32 on a CPU."""
    if settings.precision != "auto":
        return settings.precision
    return "fp16" if device.startswith("cuda") else "fp32"


def _visible_gpus() -> int:
    """GPUs that the driver shows, without initialising CUDA; 0 where CUDA_VISIBLE_DEVICES hides them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "none"):
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pynvml
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
