"""A driver library for machines without one: the GPUs are those of FAKE_GPUS, e.g. ``A,B,C:2`` (C in two MIG parts)."""

import os


class NVMLError(Exception):
    """As in the real one."""


def _gpus():
    return [entry.partition(":") for entry in os.environ.get("FAKE_GPUS", "").split(",") if entry]


def nvmlInit():
    if not _gpus():
        raise NVMLError("no driver")


def nvmlShutdown():
    pass


def nvmlDeviceGetCount():
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index):
    return _gpus()[index]


def nvmlDeviceGetName(handle):
    return b"Fake H100"


def nvmlDeviceGetUUID(handle):
    return handle if isinstance(handle, str) else f"GPU-{handle[0]}"


def nvmlDeviceGetHandleByUUID(uuid):
    return uuid


def nvmlDeviceGetMigMode(handle):
    if handle[0] == "old":
        raise NVMLError("not supported")
    return (1 if handle[2] else 0, 0)


def nvmlDeviceGetMaxMigDeviceCount(handle):
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle, number):
    if number >= int(handle[2]):
        raise NVMLError("not found")
    return f"MIG-{handle[0]}-{number}"


class _Memory:
    used, total = 600_000_000, 80_000_000_000


def nvmlDeviceGetMemoryInfo(handle):
    return _Memory
