"""The net process, seen from the worker's parent: started, looked after, started again, stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Optional

from worker.children import Deaths
from worker.device import board as boards
from worker.device.board import Board, now
from worker.device.channel import listen
from worker.device.pin import Device
from worker.device.server import READY
from worker.errors import DeviceLost, ModelError
from worker.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds before a net process that has died is started again, at first and at most.
_PAUSES_S = (0.5, 2.0)
#: Seconds that a killed one takes at most to end. A process that waits in the driver for a GPU that does not answer
#: never does.
_END_S = 5.0


class NetProcess:
    """One worker's net process.

    Args:
        name: the worker's, ``gpu3@host``.
    """

    def __init__(self, settings: Settings, device: Device, name: str, board: Board) -> None:
        self._settings, self._device, self._name, self._board = settings, device, name, board
        # Made here and kept, so that slots find the same address whichever net process serves it.
        self._listener = listen()
        self.address: bytes = self._listener.getsockname()
        self._process: Optional[subprocess.Popen] = None
        self._control = self._report = -1
        self._killed_at = 0.0
        self._deaths = Deaths(*_PAUSES_S)

    @property
    def restarts(self) -> int:
        """How often it has died within the last ten minutes."""
        return self._deaths.count

    def launch(self) -> None:
        """Start it, without waiting for the net."""
        read_control, self._control = os.pipe()
        self._report, write_report = os.pipe()
        passed = (self._listener.fileno(), self._board.descriptor, read_control, write_report)
        arguments = (*map(str, (*passed, os.getpid())), self._name)
        # No preexec_fn: this process has threads. The child itself asks to die with its parent.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.device.server", *arguments],
            pass_fds=passed,
            cwd=Path(__file__).resolve().parent.parent.parent,
            env={**os.environ, **self._environment()},
            stdin=subprocess.DEVNULL,
        )
        os.close(read_control)
        os.close(write_report)
        self._board.net.pid, self._board.net.beat = self._process.pid, now()

    def await_ready(self, abandoned: Callable[[], bool] = lambda: False) -> str:
        """Wait until the net is loaded and warm.

        Args:
            abandoned: asked again and again; True ends the waiting.

        Returns:
            the net, its precision and its device, for the log.

        Raises:
            ModelError: it could not load the net; why, in one sentence.
            DeviceLost: it was not ready in time, or was abandoned.
        """
        deadline = time.monotonic() + self._settings.start_timeout_s
        while not select.select([self._report], [], [], 0.1)[0]:
            if abandoned() or time.monotonic() > deadline:
                self.stop(0.0)
                raise DeviceLost(
                    f"The net was not ready within {self._settings.start_timeout_s:g} s; raise POSE_START_TIMEOUT_S."
                )
        word = os.read(self._report, select.PIPE_BUF)
        if word.startswith(READY):
            return word[len(READY) :].decode()
        status = self._end(_END_S)
        raise ModelError(word.decode() or f"The process loading the net died with status {status}; see the log above.")

    def keep_running(self) -> None:
        """Start it again if it has died or hangs; call it every second or so. It never waits.

        Raises:
            DeviceLost: it keeps dying, or does not even end when it is killed.
        """
        if self._process is None:
            if self._deaths.may_start:
                self.launch()
            return
        status = self._process.poll()
        if self._killed_at:
            if status is not None:
                self._process, self._killed_at = None, 0.0
            elif now() - self._killed_at > _END_S:
                raise DeviceLost(_stuck(self._process.pid, self._device))
            return
        trouble = f"died with status {status}{self._why()}" if status is not None else self._hanging()
        if trouble:
            self._bury(trouble)

    def start_again(self, why: str, *, counts: bool) -> None:
        """End it, for it `why`; :meth:`keep_running` starts another.

        Args:
            counts: whether that is its own fault; not if it is a job's.

        Raises:
            DeviceLost: it keeps dying.
        """
        if self._process is not None and not self._killed_at:
            self._bury(why, counts=counts)

    def stop(self, grace_s: float) -> None:
        """For good: let it finish what runs, for `grace_s` seconds, and give the device back."""
        self._listener.close()
        if self._process is None or self._killed_at:  # whatever was killed is not waited for again
            self._process = None
            return
        os.close(self._control)
        if self._end(grace_s) is None:
            logger.error("✗ %s", _stuck(self._board.net.pid, self._device))
        os.close(self._report)

    def _end(self, grace_s: float) -> Optional[int]:
        """Its status once it has ended, by itself or killed; None if not even that ends it."""
        process, self._process = self._process, None
        assert process is not None
        for seconds in (grace_s, _END_S):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(seconds)
            process.kill()
        return None

    def _environment(self) -> dict[str, str]:
        pinned = {"POSE_DEVICE": "cuda:0" if self._device.gpu else "cpu", **self._device.environment}
        return {**pinned, "OMP_NUM_THREADS": str(self._settings.threads)} if self._settings.threads else pinned

    def _hanging(self) -> str:
        row, limit = self._board.net, self._settings.net_timeout_s
        if row.state != boards.READY:
            return "did not get ready in time" if now() - row.beat > self._settings.start_timeout_s else ""
        since = row.busy_since or row.beat
        return f"has hung for {limit:g} s" if now() - since > limit else ""

    def _why(self) -> str:
        """What a process that did not get ready had to say, as a part of a sentence."""
        readable = select.select([self._report], [], [], 0.0)[0]
        said = os.read(self._report, select.PIPE_BUF) if readable else b""
        return "" if not said or said.startswith(READY) else f" ({said.decode().rstrip('.')})"

    def _bury(self, trouble: str, *, counts: bool = True) -> None:
        """Kill it; :meth:`keep_running` sees it end."""
        assert self._process is not None
        self._process.kill()
        os.close(self._control)
        os.close(self._report)
        self._killed_at = now()
        self._board.net.state, self._board.net.busy_since = boards.LOADING, 0.0
        pause = self._deaths.add() if counts else 0.0
        if self._deaths.too_many:
            raise DeviceLost(f"The net process {trouble}, the {self._deaths.count}th time in ten minutes; giving up.")
        logger.error("✗ The net process %s; another is started in %g s.", trouble, pause)


def _stuck(pid: int, device: Device) -> str:
    return (
        f"The net process {pid} was killed and does not end, for the driver of {device} does not answer; reset the "
        "device, or restart the host."
    )
