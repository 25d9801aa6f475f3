"""What a worker's processes tell each other of themselves: a page of shared memory, read without asking.

The net process and each slot write their own row; the worker's parent reads all of them. A frozen
process cannot hide behind a parent that still answers. Times are those of the system-wide monotonic clock, in seconds.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time

from worker.device.tally import Histogram, JobTally
from worker.settings import MAX_SLOTS

_ERROR_BYTES = 256
#: States of the net process.
LOADING, READY = 0, 1


class NetRow(ctypes.Structure):
    """The net process's row; `busy_since` is 0 while no batch is in flight, `batch` the slots (process ids) in it."""

    _fields_ = (
        ("pid", ctypes.c_int64),
        ("state", ctypes.c_int64),
        ("beat", ctypes.c_double),
        ("busy_since", ctypes.c_double),
        ("last_batch_at", ctypes.c_double),
        ("batches", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("out_of_memory", ctypes.c_int64),
        ("starts", ctypes.c_int64),
        ("batch_sizes", Histogram),
        ("batch", ctypes.c_int64 * MAX_SLOTS),
    )


class SlotRow(ctypes.Structure):
    """A slot's row; `busy_since` is 0 between jobs, `working_since` also while it waits for Redis.

    `decodes_from` is its processor time when it began to decode the image in work; 0 at any other time.
    """

    _fields_ = (
        ("pid", ctypes.c_int64),
        ("beat", ctypes.c_double),
        ("busy_since", ctypes.c_double),
        ("working_since", ctypes.c_double),
        ("decodes_from", ctypes.c_double),
        ("done", ctypes.c_int64),
        ("failed", ctypes.c_int64),
        ("tally", JobTally),
    )


class WorkerRow(ctypes.Structure):
    """Of the worker as a whole. Each field has one writer, or one value that it can come to have.

    The parent says that slots may be ended (`leaving`), and counts the jobs that were taken from the queue and not
    begun, because they were revoked or had expired (`revoked`). A slot says that none can work (`broken`).
    """

    _fields_ = (("leaving", ctypes.c_bool), ("broken", ctypes.c_bool), ("revoked", ctypes.c_int64))


class _Page(ctypes.Structure):
    _fields_ = (
        ("worker", WorkerRow),
        ("net", NetRow),
        ("slots", SlotRow * MAX_SLOTS),
        ("last_error", ctypes.c_char * _ERROR_BYTES),
    )


class Board:
    """The shared page.

    Args:
        descriptor: of a page that another process has made; it is not closed here.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        page = _Page.from_buffer(mmap.mmap(descriptor, ctypes.sizeof(_Page)))
        self.worker: WorkerRow = page.worker
        self.net: NetRow = page.net
        self._page = page

    @classmethod
    def create(cls) -> Board:
        """A new page, in anonymous memory that ends with the last process holding it."""
        descriptor = os.memfd_create("pose-board")
        os.ftruncate(descriptor, ctypes.sizeof(_Page))
        return cls(descriptor)

    def slot(self, index: int) -> SlotRow:
        """The row of slot `index`."""
        row: SlotRow = self._page.slots[index]
        return row

    @property
    def last_error(self) -> str:
        """The sentence of the last job that failed, shortened."""
        return bytes(self._page.last_error).decode("utf-8", "replace")

    @last_error.setter
    def last_error(self, sentence: str) -> None:
        self._page.last_error = sentence.encode("utf-8", "replace")[: _ERROR_BYTES - 1]


def now() -> float:
    """Seconds of the clock that all rows are written in."""
    return time.monotonic()
