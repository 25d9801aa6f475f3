"""What the chaos runs play on: a Redis with an append-only file, and workers that a supervisor starts again."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import psutil
import redis

from tests.brokers import free_port
from tests.support import ROOT, clean_environ, wait_until
from worker.fleet import worker_command
from worker.health import read_heartbeats
from worker.local import _redis_server
from worker.processes import start_child, stop_child

#: Short limits, so that what dies is noticed soon.
SETTINGS = {
    "POSE_ENGINE": "null",
    "NULL_NET_MS": "4",
    "POSE_SOFT_TIME_LIMIT_S": 5,
    "POSE_HARD_TIME_LIMIT_S": 8,
    "POSE_RETRY_BASE_S": 0.2,
    "POSE_RETRY_MAX_S": 1,
    "POSE_GRACE_S": 3,
    "POSE_NET_TIMEOUT_S": 3,
    "POSE_WARM_SIZES": "64x64",
    "POSE_SLOTS": 2,
    "POSE_MAX_ATTEMPTS": 20,
    "POSE_RESULT_EXPIRES_S": 3600,
}


class Server:
    """A Redis that keeps what it is told, also when it is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: Optional[subprocess.Popen] = None
        self.client = redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "no"]  # a kill loses nothing that was written
        self._process = start_child([_redis_server(), *options], stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self, seconds: float) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            stop_child(self._process, grace_s=5)
        self.client.close()

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False


class Workers:
    """Workers ``cpu0`` … that are started again as soon as they die.

    Args:
        variables: POSE_* variables beside SETTINGS.
    """

    def __init__(self, count: int, folder: Path, variables: Dict[str, Any], app: str = "tests.chaos.app") -> None:
        self.log, self.heartbeats, self._app = folder / "workers.log", folder / "heartbeats", app
        chosen = {**SETTINGS, "POSE_HEARTBEAT_DIR": self.heartbeats, **variables}
        self._environment = {**clean_environ(), **{name: str(value) for name, value in chosen.items()}}
        self._children: Dict[str, subprocess.Popen] = {}
        self._names = [f"cpu{number}" for number in range(count)]
        self._leaving = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self.restarts = -count

    def start(self) -> None:
        self._keeper.start()

    def stop(self) -> List[psutil.Process]:
        """Stop them in good order; returns what outlived them, which must be nothing."""
        self._leaving.set()
        self._keeper.join()
        family = [process for child in self._children.values() for process in self._family(child.pid)]
        for child in self._children.values():
            child.send_signal(signal.SIGCONT)
            child.terminate()
        for child in self._children.values():
            stop_child(child, grace_s=20)
        return psutil.wait_procs(family, 10)[1]

    def await_ready(self) -> None:
        wait_until(lambda: sum(one["ready"] for one in self.reports()) == len(self._names), 120)

    def reports(self) -> List[Any]:
        return read_heartbeats(self.heartbeats)

    def pids(self) -> List[int]:
        """The workers' parents."""
        return [child.pid for child in list(self._children.values()) if child.poll() is None]

    def slots(self, worker: int) -> List[psutil.Process]:
        return [one for one in self._family(worker)[1:] if not _is_net(one)]

    def nets(self, worker: int) -> List[psutil.Process]:
        return [one for one in self._family(worker)[1:] if _is_net(one)]

    def _family(self, pid: int) -> List[psutil.Process]:
        try:
            parent = psutil.Process(pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _keep(self) -> None:
        with self.log.open("ab") as log:
            while not self._leaving.wait(0.1):
                for name in self._names:
                    child = self._children.get(name)
                    if child is None or child.poll() is not None:
                        self._children[name] = self._start(name, log)
                        self.restarts += 1

    def _start(self, name: str, log: Any) -> subprocess.Popen:
        command = worker_command(name, log_level="WARNING")
        command[command.index("--app") + 1] = self._app
        return subprocess.Popen(
            command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
        )


def _is_net(process: psutil.Process) -> bool:
    try:
        return "worker.device.server" in process.cmdline()
    except psutil.Error:
        return False


def shared_memory() -> List[str]:
    """What lies in the machine's shared memory."""
    return sorted(path.name for path in Path("/dev/shm").iterdir())
