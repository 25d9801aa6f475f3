"""Children that never outlive their parent, whatever kills it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import FrameType
from typing import Any, Iterator, List, Optional

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
