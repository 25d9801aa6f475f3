"""Children that never outlive their parent, whatever kills it; how often they may die; threads that go round."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import FrameType
from typing import Any, Callable, Iterator, List, Optional, Type

from worker.errors import PoseError

logger = logging.getLogger(__name__)

#: A child that has died more often than this within _MEMORY_S seconds is not started again.
_MOST_DEATHS = 5
_MEMORY_S = 600.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Have the kernel send this process `signum` when its parent dies; does nothing beside Linux."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum))


def start_child(command: List[str], **options: Any) -> subprocess.Popen:
    """Start `command` so that it is killed when this process dies; call it from the main thread.

    The child gets a session of its own, so that a Ctrl-C at the terminal reaches only the parent, which stops it in
    good order.
    """
    parent = os.getpid()

    def before_exec() -> None:
        die_with_parent()
        if os.getppid() != parent:  # the parent died between the fork and the line above
            os._exit(1)

    return subprocess.Popen(command, preexec_fn=before_exec, start_new_session=True, **options)


def stop_child(child: subprocess.Popen, grace_s: float) -> int:
    """Ask `child` to stop with SIGTERM, kill it after `grace_s` seconds, and return its exit status."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


class Deaths:
    """How often a child has died within ten minutes: after how long it is started again, and when no more.

    Args:
        first_pause_s: seconds before it is started again after its first death; doubled by each one more.
        longest_pause_s: what the pause is at most, in seconds.
    """

    def __init__(self, first_pause_s: float, longest_pause_s: float) -> None:
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._times: List[float] = []
        self._start_at = 0.0

    @property
    def count(self) -> int:
        """Deaths in the ten minutes before the last one, and that one."""
        return len(self._times)

    @property
    def too_many(self) -> bool:
        """Whether it is not worth starting again."""
        return self.count > _MOST_DEATHS

    @property
    def may_start(self) -> bool:
        """Whether the pause after the last death is over."""
        return time.monotonic() >= self._start_at

    def add(self) -> float:
        """Count another death, which was now; returns the pause before the next start, in seconds."""
        now = time.monotonic()
        self._times = [death for death in self._times if now - death < _MEMORY_S] + [now]
        pause_s = min(self._longest_pause_s, self._first_pause_s * 2 ** (self.count - 1))
        self._start_at = now + pause_s
        return pause_s


class Rounds(threading.Thread):
    """A thread that calls `look` now and every `every_s` seconds, until it is stopped or its process ends.

    Args:
        passing: what `look` may raise that passes by itself and that others log, such as RedisError.
    """

    def __init__(self, name: str, every_s: float, look: Callable[[], object], *passing: Type[Exception]) -> None:
        super().__init__(name=name, daemon=True)
        self._every_s, self._work, self._passing = every_s, look, passing
        self._ended = threading.Event()

    def run(self) -> None:
        """Go on whatever happens; what is said once is not said again until it has passed."""
        said = ""
        while not self._ended.is_set():
            try:
                self._work()
                said = ""
            except self._passing as exc:
                logger.debug("The %s waits: %s", self.name, exc)
            except PoseError as exc:
                if str(exc) != said:
                    logger.warning("The %s goes on: %s", self.name, exc)
                said = str(exc)
            except Exception:
                logger.exception("✗ The %s met an error; it looks again.", self.name)
            self._ended.wait(self._every_s)

    def stop(self) -> None:
        """Look no more; what is not done, another worker does."""
        self._ended.set()


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into the exception that Ctrl-C raises, so that children are always stopped."""

    def interrupt(signum: int, _: Optional[FrameType]) -> None:
        # One is enough: a second signal must not interrupt the cleaning up.
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + signum)

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupt)
    yield
