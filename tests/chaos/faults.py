"""Everything that is killed, frozen, filled or cut off during a chaos run. Each fault returns what it hit."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import psutil
import redis

from tests.chaos.proxy import Proxy, Trap
from tests.chaos.stage import Disk, Server, Workers

#: Seconds for which the disk stays full.
FULL_S = 3.0
#: Seconds for which a message to be popped is waited for.
_POP_S = 5.0
#: Faults that reach all workers at once.
OF_ALL = ("Redis killed", "Redis away", "connections cut", "disk full")


class Faults:
    """Does what a seed says to one stage.

    Args:
        outage_s: seconds for which Redis is away when it is taken away.
        frozen_s: seconds for which a whole worker is frozen, longer than its leases last.
        only: kinds of faults, by parts of their names; all if empty.
    """

    def __init__(
        self,
        generator: random.Random,
        server: Server,
        disk: Disk,
        workers: Workers,
        *,
        outage_s: float,
        frozen_s: float,
        only: Sequence[str] = (),
    ) -> None:
        self._random, self._server, self._disk, self._workers = generator, server, disk, workers
        self._outage_s, self._frozen_s = outage_s, frozen_s
        pids, slots, nets = workers.pids, self._slots, self._nets
        #: What is done, and how often beside the others.
        kinds: Dict[str, Tuple[Callable[[], Optional[str]], float]] = {
            "worker killed": (lambda: self._signal(pids(), signal.SIGKILL), 4),
            "slot killed": (lambda: self._signal(slots(), signal.SIGKILL), 6),
            "net killed": (lambda: self._signal(nets(), signal.SIGKILL), 4),
            "worker frozen": (self._freeze_worker, 2),
            "slot frozen": (lambda: self._freeze(slots(), 4), 2),
            "net frozen": (lambda: self._freeze(nets(), 5), 2),
            "drained": (lambda: self._signal(pids(), signal.SIGTERM), 2),
            "drained as a group": (self._drain_group, 2),
            "grace expired": (self._expire_grace, 1.5),
            "disk full": (self._fill_disk, 2 if disk.mounted else 0),
            "Redis killed": (self._kill_redis, 1),
            "Redis away": (self._pause_redis, 0.5),
            "connections cut": (self._cut, 2),
            "cut at the pop": (lambda: self._at_the_pop(lambda pid: False), 2),
            "killed at the pop": (lambda: self._at_the_pop(self._kill_now), 2),
            "frozen at the pop": (lambda: self._at_the_pop(self._freeze_now), 1.5),
        }
        self._kinds = {kind: one for kind, one in kinds.items() if not only or any(part in kind for part in only)}

    def strike(self) -> str:
        """Do one of them; says which, and to whom."""
        (kind,) = self._random.choices(list(self._kinds), [weight for _, weight in self._kinds.values()])
        return f"{kind} {self._kinds[kind][0]() or 'nobody'}"

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
            _in(seconds, lambda: _resume([pid]))
        return pid and str(pid)

    def _freeze_worker(self) -> Optional[str]:
        pid = self._one(self._workers.pids())
        if pid is not None:
            self._freeze_now(pid)
        return pid and str(pid)

    def _drain_group(self) -> Optional[str]:
        pid = self._one(self._workers.pids())
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.killpg(pid, signal.SIGTERM)  # type: ignore[arg-type]
        return pid and str(pid)

    def _expire_grace(self) -> Optional[str]:
        """A worker is drained whose jobs cannot end in time, for its net stands still."""
        pid = self._one(self._workers.pids())
        if pid is None:
            return None
        nets = [net.pid for net in self._workers.nets(pid)]
        _stop(nets)
        _in(8, lambda: _resume(nets))
        _in(0.5, lambda: self._signal([pid], signal.SIGTERM))
        return str(pid)

    def _fill_disk(self) -> str:
        self._disk.fill()
        _in(FULL_S, self._disk.clear)
        return f"for {FULL_S:g} s"

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

    def _at_the_pop(self, action: Callable[[int], bool]) -> Optional[str]:
        """Redis has given a message away, and the worker has not yet noted that it holds it."""
        hit: List[int] = []

        def act(proxy: Proxy) -> bool:
            pid = next((self._workers.pid(name) for name, one in self._workers.proxies.items() if one is proxy), None)
            hit.extend([pid] if pid is not None else [])
            return pid is None or action(pid)

        Trap(list(self._workers.proxies.values()), act).wait(_POP_S)
        return str(hit[0]) if hit else None

    def _kill_now(self, pid: int) -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return False

    def _freeze_now(self, pid: int) -> bool:
        """It gets the message only when it thaws, when others may have taken it for lost."""
        family = [process.pid for process in self._workers.family(pid)]
        _stop(family)
        _in(self._frozen_s, lambda: _resume(family))
        return True


def _in(seconds: float, act: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def _stop(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).suspend()


def _resume(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).resume()
