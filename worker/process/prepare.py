"""What a worker's parent does before it forks its slots: what they all need is loaded once, and shared by them."""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path

import worker.process.slot  # noqa: F401 - for the slots
from worker.children import die_with_parent
from worker.pose import compiled
from worker.pose.decoder import find_peaks, warm, warm_association, warm_peaks


def prepare() -> None:
    """Load what slots need, the decoder compiled; the first time on a host, that takes seconds."""
    with open(compiled.__file__, "rb") as turn:  # noqa: PTH123 - a file that every worker of the host can lock
        fcntl.flock(turn, fcntl.LOCK_EX)  # the first one compiles, the others find it done
        folder = find_peaks.stats.cache_path
        if folder and not any(Path(folder).glob("*.nbi")):
            _compile()
        warm()
    gc.freeze()  # what is there now stays: neither here nor in slots need it be looked through


def _compile() -> None:
    """Compile the decoder's two halves at a time, in two processes; it is kept on disk."""
    child = os.fork()
    if child == 0:
        die_with_parent()
        try:
            warm_association()
        finally:
            os._exit(0)
    warm_peaks()
    os.waitpid(child, 0)
