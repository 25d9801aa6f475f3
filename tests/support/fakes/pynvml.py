"""A driver library for machines without one: the GPUs are those of FAKE_GPUS, e.g. ``A,B,C:2`` (C in two MIG parts).

One whose name begins with ``old`` cannot be divided, with ``slow`` is of another product, with ``lost`` does not
answer. FAKE_DRIVER is the error that the driver meets when it is opened.
"""

import os

NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED = 3, 6, 9
NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_FUNCTION_NOT_FOUND, NVML_ERROR_GPU_IS_LOST = 12, 13, 15
nvmlMemory_v2 = 0x02000028  # noqa: N816 - as in the real one

#: How often the driver was opened.
opened = 0


class NVMLError(Exception):
    """As in the real one."""

    def __init__(self, value):
        super().__init__(f"error {value}")
        self.value = value


def _gpus():
    return [entry.partition(":") for entry in os.environ.get("FAKE_GPUS", "").split(",") if entry]


def nvmlInit():
    global opened
    opened += 1
    error = int(os.environ.get("FAKE_DRIVER", "0"))
    if error or not _gpus():
        raise NVMLError(error or NVML_ERROR_LIBRARY_NOT_FOUND)


def nvmlShutdown():
    pass


def nvmlDeviceGetCount():
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index):
    if _gpus()[index][0].startswith("lost"):
        raise NVMLError(NVML_ERROR_GPU_IS_LOST)
    return _gpus()[index]


def nvmlDeviceGetName(handle):
    return b"Fake L4" if handle[0].startswith("slow") else b"Fake H100"


def nvmlDeviceGetUUID(handle):
    return handle if isinstance(handle, str) else f"GPU-{handle[0]}"


def nvmlDeviceGetHandleByUUID(uuid):
    if os.environ.get("FAKE_GPUS", "").startswith("lost"):
        raise NVMLError(NVML_ERROR_GPU_IS_LOST)
    return uuid


def nvmlDeviceGetMigMode(handle):
    if handle[0].startswith("old"):
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return (1 if handle[2] else 0, 0)


def nvmlDeviceGetMaxMigDeviceCount(handle):
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle, number):
    if number >= int(handle[2]):
        raise NVMLError(NVML_ERROR_NOT_FOUND)
    return f"MIG-{handle[0]}-{number}"


class _Memory:
    used, total = 600_000_000, 80_000_000_000


class _OldMemory:
    used, total = 1_100_000_000, 80_000_000_000  # what the driver keeps for itself, too


def nvmlDeviceGetMemoryInfo(handle, version=None):
    if version is None:
        return _OldMemory
    if "old" in handle:
        raise NVMLError(NVML_ERROR_FUNCTION_NOT_FOUND)
    return _Memory
