"""The GPUs of this machine, as the driver reports them: CUDA is not initialised for it."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence

from worker.children import Rounds
from worker.errors import DeviceLost, SettingsError

logger = logging.getLogger(__name__)

#: Seconds between two looks at a GPU's memory.
_LOOK_S = 1.0


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
    """A device's memory, in bytes. What the driver keeps for itself is in neither `used` nor what is free."""

    used: int
    total: int


def visible_gpus(mask: Optional[str] = None) -> List[Gpu]:
    """The GPUs that this process may use, MIG instances in place of the GPU they divide.

    A GPU that does not answer is left out, and the others keep their numbers.

    Args:
        mask: as CUDA_VISIBLE_DEVICES, which it is taken from if not given: indices or UUIDs (or beginnings of one);
            what follows an entry that names nothing is hidden, as CUDA has it.

    Raises:
        DeviceLost: there is a driver, and it does not answer.
        SettingsError: the mask has numbers, which CUDA would count in another order.
    """
    mask = os.environ.get("CUDA_VISIBLE_DEVICES") if mask is None else mask
    with _driver() as nvml:
        found = list(_devices(nvml)) if nvml else []
    if mask is not None:
        entries = [entry.strip() for entry in mask.split(",")]
        _check_order(found, entries)
        found = _masked(found, entries)
    return [gpu._replace(number=number) for number, gpu in enumerate(found) if gpu.uuid]


def memory(uuid: str) -> Optional[Memory]:
    """The memory of the GPU `uuid`, now; None where the driver does not report it."""
    with contextlib.suppress(DeviceLost), _driver() as nvml:
        return _memory(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid)) if nvml else None
    return None


class MemoryWatch:
    """A GPU's memory, looked at in a thread of its own: whoever asks the driver of a GPU that hangs may hang with it.

    Attributes:
        seen: as of the last look; None before it, without a GPU, and where the driver does not report it.
    """

    def __init__(self, gpu: Optional[Gpu]) -> None:
        self._gpu, self._handle = gpu, None
        self._open = contextlib.ExitStack()
        self._rounds: Optional[Rounds] = None
        self._nvml: Any = None
        self.seen: Optional[Memory] = None

    def start(self) -> None:
        """Look from now on."""
        if self._gpu is not None:
            self._rounds = Rounds("memory", _LOOK_S, self._look)
            self._rounds.start()

    def stop(self) -> None:
        """Look no more."""
        if self._rounds is not None:
            self._rounds.stop()

    def _look(self) -> None:
        assert self._gpu is not None
        try:
            if self._handle is None:  # the driver stays open: to open it each time costs more than to ask it
                self._nvml = self._open.enter_context(_driver())
                self._handle = self._nvml.nvmlDeviceGetHandleByUUID(self._gpu.uuid) if self._nvml else None
            self.seen = _memory(self._nvml, self._handle) if self._handle is not None else None
        except Exception as exc:  # of the driver's library; the next look opens it anew
            logger.debug("The driver does not report memory: %s", exc)
            self.seen = self._handle = None
            with contextlib.suppress(Exception):
                self._open.close()


def _memory(nvml: Any, handle: Any) -> Memory:
    try:
        info = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError:  # an older driver counts what it keeps for itself as used
        info = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Memory(int(info.used), int(info.total))


def _devices(nvml: Any) -> Iterator[Gpu]:
    """All GPUs; one that does not answer has no UUID."""
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            yield from list(_parts(nvml, index))
        except nvml.NVMLError as exc:
            logger.error("✗ GPU %d does not answer (%s); it is left out.", index, exc)
            yield Gpu(index, "", "")


def _parts(nvml: Any, index: int) -> Iterator[Gpu]:
    """The GPU, or its MIG instances. One that is to be divided and is not cannot be used."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = _text(nvml.nvmlDeviceGetName(handle))
    if _is_divided(nvml, handle):
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with contextlib.suppress(nvml.NVMLError):  # no instance has this number
                instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                yield Gpu(index, _text(nvml.nvmlDeviceGetUUID(instance)), f"{name} MIG")
    else:
        yield Gpu(index, _text(nvml.nvmlDeviceGetUUID(handle)), name)


def _is_divided(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError as exc:
        if exc.value != nvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        return False


def _check_order(found: Sequence[Gpu], entries: Sequence[str]) -> None:
    """Numbers mean the order of the PCI bus here, as for nvidia-smi; to CUDA, the fastest GPU is the first."""
    kinds = {gpu.name.replace(" MIG", "") for gpu in found if gpu.uuid}
    ordered = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if len(kinds) > 1 and not ordered and any(entry.isdigit() for entry in entries):
        raise SettingsError(
            f"CUDA_VISIBLE_DEVICES is {','.join(entries)!r}, but this machine's GPUs are not alike, and CUDA counts "
            "the fastest first; name them by UUID (see nvidia-smi -L), or set CUDA_DEVICE_ORDER=PCI_BUS_ID."
        )


def _masked(found: Sequence[Gpu], entries: Sequence[str]) -> List[Gpu]:
    kept: List[Gpu] = []
    lost = next((gpu for gpu in found if not gpu.uuid), None)
    for entry in entries:
        if entry.isdigit():
            match = next((gpu for gpu in found if gpu.number == int(entry)), None)
        else:  # a UUID that is not there may be that of a GPU that does not answer
            match = next((gpu for gpu in found if entry and gpu.uuid.startswith(entry)), lost if entry else None)
        if match is None:
            break
        kept.append(match)
    return kept


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def _driver() -> Iterator[Any]:
    """The driver's library, initialised; None on a machine that has no driver.

    Raises:
        DeviceLost: it does not answer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an older package of the same name
        import pynvml
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as exc:
        if exc.value not in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
            raise _lost(exc) from exc
        yield None
        return
    try:
        yield pynvml
    except pynvml.NVMLError as exc:
        raise _lost(exc) from exc
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _lost(exc: Exception) -> DeviceLost:
    return DeviceLost(
        f"NVIDIA's driver does not answer ({exc}); see nvidia-smi and the kernel's log, or set POSE_DEVICE=cpu to work "
        "without a GPU."
    )
