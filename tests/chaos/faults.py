"""Everything that is killed, frozen or cut off during a chaos run. Each fault returns what it hit."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from typing import Callable, Dict, List, Optional, Sequence

import psutil
import redis

from tests.chaos.stage import Server, Workers


class Faults:
    """Does what a seed says to one stage.

    Args:
        outage_s: seconds for which Redis is away when it is taken away.
    """

    def __init__(self, generator: random.Random, server: Server, workers: Workers, outage_s: float) -> None:
        self._random, self._server, self._workers, self._outage_s = generator, server, workers, outage_s
        self.kinds: Dict[str, Callable[[], Optional[str]]] = {
            "worker killed": lambda: self._signal(self._workers.pids(), signal.SIGKILL),
            "slot killed": lambda: self._signal(self._slots(), signal.SIGKILL),
            "net killed": lambda: self._signal(self._nets(), signal.SIGKILL),
            "worker frozen": self._freeze_worker,
            "slot frozen": lambda: self._freeze(self._slots(), 4),
            "net frozen": lambda: self._freeze(self._nets(), 5),
            "drained": lambda: self._signal(self._workers.pids(), signal.SIGTERM),
            "drained as a group": self._drain_group,
            "Redis killed": self._kill_redis,
            "Redis away": self._pause_redis,
            "connections cut": self._cut,
        }
        self._weights = [4, 6, 4, 2, 2, 2, 2, 2, 1, 0.5, 2]

    def strike(self) -> str:
        """Do one of them; says which, and to whom."""
        (kind,) = self._random.choices(list(self.kinds), self._weights)
        return f"{kind} {self.kinds[kind]() or 'nobody'}"

    def _one(self, pids: Sequence[int]) -> Optional[int]:
        return self._random.choice(sorted(pids)) if pids else None

    def _slots(self) -> List[int]:
        return [slot.pid for pid in self._workers.pids() for slot in self._workers.slots(pid)]

    def _nets(self) -> List[int]:
        return [net.pid for pid in self._workers.pids() for net in self._workers.nets(pid)]

    def _signal(self, pids: Sequence[int], signum: int) -> Optional[str]:
        pid = self._one(pids)
        if pid is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
        return str(pid)

    def _freeze(self, pids: Sequence[int], seconds: float) -> Optional[str]:
        pid = self._one(pids)
        if pid is not None:
            _stop([pid])
            threading.Timer(seconds, _resume, [[pid]]).start()
        return pid and str(pid)

    def _freeze_worker(self) -> Optional[str]:
        """A whole worker, for longer than its leases."""
        pid = self._one(self._workers.pids())
        if pid is None:
            return None
        family = [pid, *(one.pid for one in (*self._workers.slots(pid), *self._workers.nets(pid)))]
        _stop(family)
        threading.Timer(13, _resume, [family]).start()
        return str(pid)

    def _drain_group(self) -> Optional[str]:
        pid = self._one(self._workers.pids())
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.killpg(pid, signal.SIGTERM)  # type: ignore[arg-type]
        return pid and str(pid)

    def _kill_redis(self) -> str:
        self._server.kill()
        self._server.start()
        return "and started again"

    def _pause_redis(self) -> str:
        self._server.pause(self._outage_s)
        return f"for {self._outage_s:g} s"

    def _cut(self) -> str:
        with contextlib.suppress(redis.RedisError):
            for kind in ("normal", "pubsub"):
                self._server.client.client_kill_filter(_type=kind, skipme=True)
        return "all"


def _stop(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).suspend()


def _resume(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).resume()
