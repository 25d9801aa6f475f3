"""The workers of this machine: one for each GPU, started again when one dies."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Callable, Dict, List, Mapping, Optional

from worker import logs
from worker.children import Deaths, die_with_parent
from worker.device.gpus import visible_gpus
from worker.device.pin import Device, own_device
from worker.errors import SettingsError
from worker.settings import Settings

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 30.0
_LOOK_S = 0.1
#: Seconds after which a worker that kept dying is tried again: such as when its GPU has been reset.
_BENCH_S = 1800.0
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


def own_workers(settings: Settings) -> Dict[str, Device]:
    """This machine's workers, by name: ``gpu0``, ``gpu1``, …; without a GPU ``cpu0``, …

    Raises:
        SettingsError: POSE_DEVICE asks for a GPU that is not there.
        DeviceLost: the driver of the GPUs does not answer.
    """
    if settings.device not in ("auto", "cpu", "cuda"):  # one was chosen
        device = own_device(settings)
        return {device.worker_name: device}
    gpus = [] if settings.device == "cpu" else visible_gpus()
    if settings.device == "cuda" and not gpus:
        own_device(settings)  # says that there is none
    return {Device(gpu).worker_name: Device(gpu) for gpu in gpus} or {
        f"cpu{i}": Device() for i in range(settings.cpu_workers)
    }


class Fleet:
    """Keeps one worker on each device running until a signal stops it.

    A worker that keeps dying is benched: the others go on without it, and much later it is tried again.

    Args:
        devices: the workers', by their names before the ``@host``.
        grace_s: seconds that a worker takes at most to leave.
        command: a worker's command line, by its name.
        first_pause_s: seconds before a worker that has died is started again; doubles with each death.
        bench_s: seconds after which a benched worker is tried again.
    """

    def __init__(
        self,
        devices: Mapping[str, Device],
        grace_s: float,
        command: Callable[[str], List[str]] = worker_command,
        first_pause_s: float = 0.5,
        bench_s: float = _BENCH_S,
    ) -> None:
        self._devices, self._grace_s, self._command, self._bench_s = devices, grace_s, command, bench_s
        #: By name, what runs: the worker, or what stands in for it while it is benched.
        self._workers: Dict[str, subprocess.Popen] = {}
        self._deaths = {name: Deaths(first_pause_s, _LONGEST_PAUSE_S) for name in devices}
        #: The last status of each benched worker.
        self._benched: Dict[str, int] = {}
        self._stopping = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, which every worker is sent as SIGTERM, or until every worker is benched.

        Returns:
            0: all workers left in good order; else the status of one that did not, or that is benched, 128 + n if
            signal n ended it.
        """
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._stop)
        while not self._stopping:
            for name in self._devices:
                self._look_after(name)
            if len(self._benched) == len(self._devices):
                logger.critical("✗ No worker is left; giving up.")
                self._stop()
            time.sleep(_LOOK_S)
        return self._await_all()

    def _look_after(self, name: str) -> None:
        """Start the worker if it is not running; bench it if it has died too often."""
        process, deaths = self._workers.get(name), self._deaths[name]
        if process is None:
            if deaths.may_start:
                self._start(name, self._command(name))
            return
        status = process.poll()
        if status is None:
            return
        del self._workers[name]
        if name in self._benched:
            logger.warning("● Worker %s is tried again.", name)
            del self._benched[name]
            return
        pause = deaths.add()
        if not deaths.too_many:
            logger.error("✗ Worker %s %s; it is started again in %g s.", name, _ended(status), pause)
            return
        self._benched[name] = _shell(status) or 1
        why = f"It {_ended(status)}, the {deaths.count}th time in ten minutes."
        logger.critical(
            "✗ Worker %s %s, the %dth time; the others go on without it, and it is tried again in %g minutes.",
            *(name, _ended(status), deaths.count, self._bench_s / 60),
        )
        if len(self._benched) < len(self._devices):  # else nobody is left to tell it beside
            gpu = map(str, self._devices[name].gpu or ())
            stand_in = (sys.executable, "-m", "worker.process.benched", name, f"{self._bench_s}", why, *gpu)
            self._start(name, list(stand_in))

    def _start(self, name: str, command: List[str]) -> None:
        gpu = self._devices[name].gpu
        # By UUID: numbers change when a GPU is lost.
        pinned = {"POSE_DEVICE": gpu.uuid} if gpu else {}
        self._workers[name] = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, **pinned},
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
        ended = {name: _await(worker, deadline) for name, worker in self._workers.items()}
        statuses = [status for name, status in ended.items() if name not in self._benched]
        # A worker that was just starting knows no better end than the signal that it was sent.
        bad = [_shell(status) for status in statuses if status not in (0, -signal.SIGTERM)]
        return next(iter([*bad, *self._benched.values()]), 0)


def run_fleet(settings: Settings) -> int:
    """Run this machine's workers; see :meth:`Fleet.run`."""
    logs.begin("fleet")
    check_installed()
    devices = own_workers(settings)
    logger.info("● %d workers: %s", len(devices), ", ".join(devices))
    return Fleet(devices, settings.grace_s).run()


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
