"""The GPUs of this machine, as the driver reports them: CUDA is not initialised for it."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence


class Gpu(NamedTuple):
    """One GPU, or one MIG instance of one.

    Attributes:
        number: its number among the GPUs that this process may use.
        uuid: ``GPU-…`` or ``MIG-…``; CUDA_VISIBLE_DEVICES takes it whatever order the devices are counted in.
        name: the product.
    """

    number: int
    uuid: str
    name: str

    def __str__(self) -> str:
        return f"{self.number}: {self.name} ({self.uuid})"


class Memory(NamedTuple):
    """A device's memory, in bytes."""

    used: int
    total: int


def visible_gpus(mask: Optional[str] = None) -> List[Gpu]:
    """The GPUs that this process may use, MIG instances in place of the GPU they divide.

    Args:
        mask: as CUDA_VISIBLE_DEVICES, which it is taken from if not given: indices or UUIDs (or beginnings of one);
            what follows an entry that names nothing is hidden, as CUDA has it.
    """
    mask = os.environ.get("CUDA_VISIBLE_DEVICES") if mask is None else mask
    with _nvml() as nvml:
        found = list(_devices(nvml)) if nvml else []
    if mask is not None:
        found = _masked(found, [entry.strip() for entry in mask.split(",")])
    return [gpu._replace(number=number) for number, gpu in enumerate(found)]


def memory(uuid: str) -> Optional[Memory]:
    """The memory of the GPU `uuid`; None where the driver does not report it."""
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            info = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(uuid))
        except nvml.NVMLError:
            return None
        return Memory(int(info.used), int(info.total))


def _devices(nvml: Any) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = _text(nvml.nvmlDeviceGetName(handle))
        instances = list(_instances(nvml, handle))
        if instances:
            yield from (Gpu(index, uuid, f"{name} MIG") for uuid in instances)
        else:
            yield Gpu(index, _text(nvml.nvmlDeviceGetUUID(handle)), name)


def _instances(nvml: Any, handle: Any) -> Iterator[str]:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # a GPU that cannot be divided
        return
    if not current:
        return
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield _text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)))
        except nvml.NVMLError:  # no instance has this number
            continue


def _masked(found: Sequence[Gpu], entries: Sequence[str]) -> List[Gpu]:
    kept: List[Gpu] = []
    for entry in entries:
        if entry.isdigit():
            match = next((gpu for gpu in found if gpu.number == int(entry)), None)
        else:
            match = next((gpu for gpu in found if entry and gpu.uuid.startswith(entry)), None)
        if match is None:
            break
        kept.append(match)
    return kept


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def _nvml() -> Iterator[Any]:
    """The initialised driver library; None on a machine that has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an older package of the same name
        import pynvml
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()
