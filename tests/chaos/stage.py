"""What the chaos runs play on: a Redis with an append-only file, and workers that a supervisor starts again."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import psutil
import redis

from tests.chaos.proxy import Proxy
from tests.support import ROOT, clean_environ, wait_until
from tests.support.brokers import free_port
from worker.children import start_child, stop_child
from worker.cli.local import _redis_server
from worker.observe.heartbeat import read_heartbeats
from worker.process.fleet import worker_command

#: Enough for the overlays of tens of thousands of jobs.
_DISK_BYTES = 128 * 2**20
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
    """A Redis that keeps what it is told, also when it is killed.

    Args:
        program: the redis-server or valkey-server; the embedded one if not given.
    """

    def __init__(self, folder: Path, program: str = "") -> None:
        self.folder, self._program, self.port = folder / "redis", program or _redis_server(), free_port()
        self.folder.mkdir()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: Optional[subprocess.Popen] = None
        self.client = redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "no"]  # a kill loses nothing that was written
        options += ["--auto-aof-rewrite-percentage", "0"]  # which keeps what was written from the first to the last
        self._process = start_child([self._program, *options], stdout=subprocess.DEVNULL)
        wait_until(self._answers, 60)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self, seconds: float) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            stop_child(self._process, grace_s=5)
        self.client.close()

    def written(self) -> Iterator[List[bytes]]:
        """Every command that changed anything, in order, as the append-only file has them."""
        for path in sorted(self.folder.rglob("*.aof")):
            with path.open("rb") as file:
                for line in file:
                    if line.startswith(b"*"):
                        yield [file.read(int(file.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False


class Disk:
    """A small file system for overlays, where one can be mounted; else a folder, which cannot be filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "store"
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", str(self.folder)]
        self.mounted = shutil.which("mount") is not None and not subprocess.run(command, capture_output=True).returncode
        self._ballast = self.folder / "ballast"

    def fill(self) -> None:
        """Leave no room."""
        # Unbuffered: what a buffer holds would be written, and fail, once more at the end.
        with self._ballast.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(b"\0" * 65536):
                pass

    def clear(self) -> None:
        """Leave room again."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


class Workers:
    """Workers ``cpu0`` … that are started again as soon as they die; each has a proxy to its broker.

    Args:
        variables: POSE_* variables beside SETTINGS.
    """

    def __init__(self, count: int, folder: Path, server: Server, variables: Dict[str, Any]) -> None:
        self.log, self.heartbeats = folder / "workers.log", folder / "heartbeats"
        chosen = {**SETTINGS, "POSE_HEARTBEAT_DIR": self.heartbeats, "POSE_RESULT_BACKEND": server.url, **variables}
        self._environment = {**clean_environ(), **{name: str(value) for name, value in chosen.items()}}
        self._children: Dict[str, subprocess.Popen] = {}
        self.proxies = {f"cpu{number}": Proxy(server.port) for number in range(count)}
        self._leaving = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self.restarts = -count

    def start(self) -> None:
        self._keeper.start()

    def stop(self) -> List[psutil.Process]:
        """Stop them in good order; returns what outlived them, which must be nothing."""
        self._leaving.set()
        self._keeper.join()
        for child in self._children.values():
            child.send_signal(signal.SIGCONT)
            child.terminate()
        for child in self._children.values():
            stop_child(child, grace_s=20)
        for proxy in self.proxies.values():
            proxy.close()
        return psutil.wait_procs(self._all(), 10)[1]

    def await_ready(self) -> None:
        wait_until(lambda: sum(one["ready"] for one in self.reports()) == len(self.proxies), 120)

    def reports(self) -> List[Any]:
        return read_heartbeats(self.heartbeats)

    def pid(self, name: str) -> Optional[int]:
        """A worker's parent, if it lives."""
        child = self._children.get(name)
        return child.pid if child is not None and child.poll() is None else None

    def pids(self) -> List[int]:
        """The workers' parents."""
        return [pid for pid in map(self.pid, self.proxies) if pid is not None]

    def slots(self, worker: int) -> List[psutil.Process]:
        return [one for one in self.family(worker)[1:] if not _is_net(one)]

    def nets(self, worker: int) -> List[psutil.Process]:
        return [one for one in self.family(worker)[1:] if _is_net(one)]

    def family(self, pid: int) -> List[psutil.Process]:
        try:
            parent = psutil.Process(pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _all(self) -> List[psutil.Process]:
        """Whatever runs in these workers' environment, also if the worker that started it is long gone."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("POSE_HEARTBEAT_DIR") == str(self.heartbeats):
                    found.append(process)
        return found

    def _keep(self) -> None:
        with self.log.open("ab") as log:
            while not self._leaving.wait(0.1):
                for name in self.proxies:
                    if self.pid(name) is None:
                        self._children[name] = self._start(name, log)
                        self.restarts += 1

    def _start(self, name: str, log: Any) -> subprocess.Popen:
        command = worker_command(name, log_level="WARNING")
        command[command.index("--app") + 1] = "tests.chaos.app"
        broker = {"POSE_BROKER_URL": f"redis://127.0.0.1:{self.proxies[name].port}/0"}
        return subprocess.Popen(
            command, cwd=ROOT, env={**self._environment, **broker}, stdout=log, stderr=log, start_new_session=True
        )


def _is_net(process: psutil.Process) -> bool:
    try:
        return "worker.device.server" in process.cmdline()
    except psutil.Error:
        return False


def shared_memory() -> List[str]:
    """What lies in the machine's shared memory though no process has it any more; others' comes and goes."""
    used = set()
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
            used.update(re.findall(r"/dev/shm/(.+)$", maps, re.MULTILINE))
    return sorted(path.name for path in Path("/dev/shm").iterdir() if path.name not in used)
