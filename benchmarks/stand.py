"""Where a benchmark of the queue runs: a Redis, workers, images, and a client that pushes them through."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np
import psutil
import redis

from benchmarks.noop import noop_app
from worker.children import start_child, stop_child
from worker.client import PoseClient
from worker.contract import Result
from worker.observe.heartbeat import read_heartbeats
from worker.process.fleet import worker_command

ROOT = Path(__file__).resolve().parent.parent
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
#: Seconds within which workers must be ready.
_PATIENCE_S = 300.0


class Workers:
    """Workers on one Redis, ended with the context that they are made in; more can be added.

    Args:
        folder: the one whose images they may read; their heartbeats are below it.
        variables: POSE_* and others.
    """

    def __init__(self, url: str, folder: Path, **variables: Any) -> None:
        self.beats = folder / "beats"
        chosen = {"POSE_BROKER_URL": url, "POSE_IMAGE_ROOTS": folder, "POSE_HEARTBEAT_DIR": self.beats, **variables}
        self._environment = {**os.environ, **{name: str(value) for name, value in chosen.items()}}
        self.children: List[subprocess.Popen] = []

    def add(self, name: str) -> None:
        """Start one more, called `name`, without waiting for it."""
        command = worker_command(name, log_level="ERROR")
        self.children.append(start_child(command, env=self._environment, cwd=ROOT, **QUIET))

    def await_ready(self) -> None:
        """Wait until all of them consume."""
        deadline = time.monotonic() + _PATIENCE_S
        while sum(one["ready"] for one in read_heartbeats(self.beats)) < len(self.children):
            dead = [child.returncode for child in self.children if child.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise SystemExit(f"the workers did not get ready within {_PATIENCE_S:g} s; ended with: {dead}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End all of them."""
        for child in self.children:
            child.terminate()
        for child in self.children:
            stop_child(child, grace_s=20)
        self.children.clear()
        for beat in self.beats.glob("*.json"):
            beat.unlink()


@contextmanager
def one_worker(url: str, folder: Path, name: str = "cpu0", **variables: Any) -> Iterator[Tuple[Workers, PoseClient]]:
    """A worker that is ready, and a client of it."""
    workers = Workers(url, folder, **variables)
    with ExitStack() as stack:
        stack.callback(workers.stop)
        workers.add(name)
        workers.await_ready()
        yield workers, stack.enter_context(PoseClient(url))


@contextmanager
def noop_worker(url: str) -> Iterator[Tuple[subprocess.Popen, Callable[[int], float]]]:
    """Celery as it comes, with a task that does nothing and two slots; gives the worker, and what measures its tasks a
    second."""
    app = noop_app(url)
    noop = app.tasks["noop"]
    command = [sys.executable, "-m", "celery", "--app", "benchmarks.noop", "worker", "--loglevel", "ERROR"]
    environment = {**os.environ, "NOOP_URL": url}
    child: subprocess.Popen = start_child([*command, "--concurrency", "2"], cwd=ROOT, env=environment, **QUIET)

    def measure(count: int) -> float:
        start = time.perf_counter()
        waiting = [noop.delay().id for _ in range(count)]
        while app.backend.client.exists(*(app.backend.get_key_for_task(one) for one in waiting)) < count:
            time.sleep(0.02)
        return count / (time.perf_counter() - start)

    try:
        noop.delay().get(timeout=120)
        yield child, measure
    finally:
        stop_child(child, grace_s=10)


def kind_of(process: psutil.Process, parent: psutil.Process) -> str:
    """What a process of the worker `parent` is."""
    if process == parent:
        return "parent"
    return "net process" if any("device.server" in word for word in process.cmdline()) else "slots"


def through(
    client: PoseClient,
    images: Sequence[Path],
    options: Dict[str, Any],
    look_s: float = 0.02,
    results: Optional[List[Result]] = None,
) -> float:
    """Seconds that the images take through the queue, all submitted at once.

    Args:
        look_s: between two looks for results, which are work for the broker, too.
        results: what came of them is appended, in any order.
    """
    start = time.perf_counter()
    waiting = [job.id for job in client.submit_many(images, **options)]
    while waiting:  # a few at a time, and now and then: the client's work is on the same cores
        ended = dict(client.ended(waiting[:50]))
        for outcome in ended.values():
            if isinstance(outcome, Exception):
                raise outcome
            if results is not None:
                results.append(outcome)
        waiting = [job_id for job_id in waiting if job_id not in ended]
        time.sleep(look_s)
    return time.perf_counter() - start


class Spent:
    """What a Redis has spent since this was made."""

    def __init__(self, server: redis.Redis) -> None:
        self._server = server
        self._before, self._start = self._read(), time.perf_counter()

    def per_second(self) -> np.ndarray:
        """Microseconds of processor time, commands, and bytes in and out, by second."""
        return (self._read() - self._before) / (time.perf_counter() - self._start)

    def per_job(self, jobs: int, resting: np.ndarray) -> np.ndarray:
        """The same by job, less what the server spends when there is none."""
        spent = self._read() - self._before - resting * (time.perf_counter() - self._start)
        return np.maximum(0.0, spent / jobs)

    def _read(self) -> np.ndarray:
        used: Any = self._server.info()
        processor = (used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6
        traffic = used["total_net_input_bytes"] + used["total_net_output_bytes"]
        return np.array([processor, used["total_commands_processed"], traffic], float)


def photograph(folder: Path) -> Path:
    """A JPEG of 640×480."""
    path = folder / "640x480.jpg"
    picture = cv2.imread(str(ROOT / "samples" / "zidane.jpg"))
    cv2.imwrite(str(path), cv2.resize(picture[:, 160:1120], (640, 480), interpolation=cv2.INTER_AREA))
    return path


def small_picture(folder: Path) -> Path:
    """A JPEG of 64×48, for what is not about pixels."""
    path = folder / "small.jpg"
    cv2.imwrite(str(path), np.full((48, 64, 3), 128, np.uint8))
    return path
