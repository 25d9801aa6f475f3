"""The workers of this machine: one for each GPU, started again when one dies."""

from __future__ import annotations

import importlib.util
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Callable, Dict, List, Optional

from worker import logs
from worker.children import Deaths, die_with_parent
from worker.device.gpus import visible_gpus
from worker.device.pin import Device, own_device
from worker.errors import SettingsError
from worker.settings import Settings

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 30.0
_LOOK_S = 0.1
_ROOT = Path(__file__).resolve().parent.parent.parent


def worker_command(name: str, log_level: str = "INFO") -> List[str]:
    """The command line of one Celery worker called ``name@host``."""
    return [
        *(sys.executable, "-m", "celery", "--app", "worker", "worker"),
        *("--pool", "prefork", "--hostname", f"{name}@%h", "--loglevel", log_level),
        *("--without-gossip", "--without-mingle"),
    ]


def check_installed() -> None:
    """Raises SettingsError where only the client is installed."""
    if any(importlib.util.find_spec(name) is None for name in ("cv2", "prometheus_client", "pynvml")):
        raise SettingsError(
            "Only the client is installed here, for submitting to workers elsewhere; workers run from a checkout with "
            "requirements.txt, or from an image (docs/operations.md)."
        )


def worker_names(settings: Settings) -> List[str]:
    """What this machine's workers are called: ``gpu0``, ``gpu1``, …; without a GPU ``cpu0``, …"""
    if settings.device not in ("auto", "cpu"):  # one was chosen
        return [own_device(settings).worker_name]
    gpus = [] if settings.device == "cpu" else visible_gpus()
    return [Device(gpu).worker_name for gpu in gpus] or [f"cpu{i}" for i in range(settings.cpu_workers)]


class Fleet:
    """Keeps one worker of each name running until a signal stops it.

    Args:
        names: the workers', before the ``@host``.
        grace_s: seconds that a worker takes at most to leave.
        command: a worker's command line, by its name.
        first_pause_s: seconds before a worker that has died is started again; doubles with each death.
    """

    def __init__(
        self,
        names: List[str],
        grace_s: float,
        command: Callable[[str], List[str]] = worker_command,
        first_pause_s: float = 0.5,
    ) -> None:
        self._names, self._grace_s, self._command = names, grace_s, command
        self._workers: Dict[str, subprocess.Popen] = {}
        self._deaths = {name: Deaths(first_pause_s, _LONGEST_PAUSE_S) for name in names}
        self._stopping = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, which every worker is sent as SIGTERM, or until a worker keeps dying.

        Returns:
            0: all workers left in good order; else the status of one that did not, 128 + n if signal n ended it.
        """
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._stop)
        while not self._stopping:
            for name in self._names:
                hopeless = self._look_after(name)
                if hopeless is not None:
                    self._stop()
                    self._await_all()
                    return hopeless
            time.sleep(_LOOK_S)
        return self._await_all()

    def _look_after(self, name: str) -> Optional[int]:
        """Start the worker if it is not running; its last status if it has died too often."""
        worker, deaths = self._workers.get(name), self._deaths[name]
        if worker is None:
            if deaths.may_start:
                self._workers[name] = self._start(name)
            return None
        status = worker.poll()
        if status is None:
            return None
        del self._workers[name]
        pause = deaths.add()
        if deaths.too_many:
            logger.critical("✗ Worker %s %s, the %dth time; giving up.", name, _ended(status), deaths.count)
            return _shell(status) or 1
        logger.error("✗ Worker %s %s; it is started again in %g s.", name, _ended(status), pause)
        return None

    def _start(self, name: str) -> subprocess.Popen:
        return subprocess.Popen(
            self._command(name),
            cwd=_ROOT,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            start_new_session=True,
        )

    def _stop(self, *_: Optional[FrameType | int]) -> None:
        self._stopping = True
        for worker in list(self._workers.values()):
            worker.send_signal(signal.SIGTERM)

    def _await_all(self) -> int:
        # A worker ends itself within its grace; beyond that and some more, it hangs.
        deadline = time.monotonic() + 2 * self._grace_s + 5
        statuses = [_await(worker, deadline) for worker in self._workers.values()]
        # A worker that was just starting knows no better end than the signal that it was sent.
        return next((_shell(status) for status in statuses if status not in (0, -signal.SIGTERM)), 0)


def run_fleet(settings: Settings) -> int:
    """Run this machine's workers; see :meth:`Fleet.run`."""
    logs.begin("fleet")
    check_installed()
    names = worker_names(settings)
    logger.info("● %d workers: %s", len(names), ", ".join(names))
    return Fleet(names, settings.grace_s).run()


def _await(worker: subprocess.Popen, deadline: float) -> int:
    try:
        return worker.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


def _ended(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _shell(status: int) -> int:
    return status if status >= 0 else 128 - status
