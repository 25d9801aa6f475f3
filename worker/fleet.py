"""The workers of this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import List, Optional

from worker.device.pin import own_device
from worker.processes import die_with_parent
from worker.settings import Settings


def worker_command(name: str, log_level: str = "INFO") -> List[str]:
    """The command line of one Celery worker called ``name@host``."""
    return [
        *(sys.executable, "-m", "celery", "--app", "worker", "worker"),
        *("--pool", "prefork", "--concurrency", "1", "--hostname", f"{name}@%h", "--loglevel", log_level),
        *("--without-gossip", "--without-mingle"),
    ]


def run_fleet(settings: Settings) -> int:
    """Run this machine's worker until it ends; SIGTERM and SIGINT are passed on to it.

    Returns:
        The worker's exit status; 128 + n if signal n ended it.
    """
    device = own_device(settings)
    name = "cpu0" if device == "cpu" else f"gpu{device.partition(':')[2] or 0}"
    worker = subprocess.Popen(
        worker_command(name),
        cwd=Path(__file__).resolve().parent.parent,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        start_new_session=True,
    )

    def pass_on(signum: int, _: Optional[FrameType]) -> None:
        worker.send_signal(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, pass_on)
    status = worker.wait()
    return status if status >= 0 else 128 - status
