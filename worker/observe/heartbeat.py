"""How a worker is: a heartbeat file on its host and a key in Redis, both telling of the net process and the slots."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional

from worker.device import board as boards
from worker.device.board import Board, now
from worker.device.gpus import memory
from worker.device.pin import Device, own_precision
from worker.servers import connect
from worker.settings import Settings

if TYPE_CHECKING:
    import redis

#: Seconds between two heartbeats, and after how many without one a worker counts as dead.
BEAT_S = 1.0
STALE_S = 10.0
#: What makes a heartbeat one.
_FIELDS = {"worker", "written_at", "pid", "net", "slots", "ready", "leaving", "jobs_done", "jobs_failed"}
#: Seconds for which Redis is left alone after it did not answer.
_OUTAGE_S = 5.0
#: Seconds beyond the hard time limit within which Celery must have killed a slot.
_SLACK_S = 10.0


class Heart:
    """Writes one worker's heartbeat.

    Args:
        name: the worker's, ``gpu3@host``.
    """

    def __init__(self, settings: Settings, name: str, device: Device, board: Board, slots: int) -> None:
        self._settings, self._name, self._device, self._board, self._slots = settings, name, device, board, slots
        self._path = None if str(settings.heartbeat_dir) == "none" else heartbeat_path(settings.heartbeat_dir, name)
        self._key = f"{settings.key_prefix}:worker:{name}"
        self._redis: Optional[redis.Redis] = None
        if settings.results_url:
            from redis import RedisError  # not at the top: the health check reads files, and starts every few seconds

            self._redis, self._outage = connect(settings.results_url, timeout_s=0.5), RedisError
        self._next = self._redis_again = 0.0
        self._before = (now(), 0)
        self._rate = 0.0
        self._started = time.time()
        #: Whether the worker consumes.
        self.ready = False

    def beat(self, restarts: int = 0) -> None:
        """Write the heartbeat, at most once a second; a disk or a Redis that is away changes nothing."""
        if now() < self._next:
            return
        self._next = now() + BEAT_S
        text = json.dumps(self.report(restarts))
        if self._path is not None:
            with contextlib.suppress(OSError):
                _replace(self._path, text)
        if self._redis is not None and now() >= self._redis_again:
            try:
                self._redis.set(self._key, text, px=int(STALE_S * 1000))
            except self._outage:
                self._redis_again = now() + _OUTAGE_S

    def stop(self) -> None:
        """Take the heartbeat away: this worker has left in good order."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._redis is not None:
            with contextlib.suppress(self._outage):
                self._redis.delete(self._key)

    def report(self, restarts: int) -> Dict[str, Any]:
        """What is written. Ages are in seconds; a batch or a job in work for longer than a limit is a fault."""
        net = self._board.net
        rows = [self._board.slot(index) for index in range(self._slots)]
        done = sum(row.done for row in rows)
        used = memory(self._device.gpu.uuid) if self._device.gpu else None
        return {
            "worker": self._name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "written_at": round(time.time(), 3),
            "started_at": round(self._started, 3),
            "ready": self.ready,
            "leaving": self._board.leaving,
            "device": str(self._device),
            "memory_used": used.used if used else None,
            "memory_total": used.total if used else None,
            "net": {
                "model": self._settings.model,
                "engine": self._settings.engine,
                "precision": own_precision(self._settings, self._device.torch_name),
                "process": not self._settings.inline,
                "ready": self._settings.inline or net.state == boards.READY,
                "quiet_s": _age(net.beat),
                "batch_in_flight_s": _age(net.busy_since),
                "last_batch_s": _age(net.last_batch_at),
                "batches": net.batches,
                "frames": net.inputs,
                "out_of_memory": net.out_of_memory,
                "restarts": restarts,
            },
            "slots": [
                {"pid": row.pid, "quiet_s": _age(row.beat), "busy_s": _age(row.busy_since), "done": row.done}
                for row in rows
            ],
            "jobs_done": done,
            "jobs_failed": sum(row.failed for row in rows),
            "jobs_per_s": self._jobs_per_s(done),
            "last_error": self._board.last_error,
        }

    def _jobs_per_s(self, done: int) -> float:
        since, before = self._before
        elapsed = now() - since
        if elapsed >= 5:
            self._rate, self._before = (done - before) / elapsed, (now(), done)
        return round(self._rate, 2)


def heartbeat_path(folder: Path, name: str) -> Path:
    """The heartbeat file of the worker called `name`."""
    return folder / f"{name.replace(os.sep, '_')}.json"


def read_heartbeats(folder: Path) -> List[Dict[str, Any]]:
    """The heartbeats of this host's workers, by name."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError):
            report = _report(path.read_bytes())
            found += [report] if report else []
    return found


def all_workers(settings: Settings) -> List[Dict[str, Any]]:
    """The heartbeats of every worker on every host, from Redis, by name.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    with connect(settings.results_url, timeout_s=5) as client:
        keys = sorted(client.scan_iter(f"{settings.key_prefix}:worker:*", count=1000))
        texts = client.mget(keys) if keys else []
    return [report for text in texts if (report := _report(text))]


def _report(text: Any) -> Optional[Dict[str, Any]]:
    """The heartbeat in `text`; None if it is none, as of a file or a key that somebody else has written."""
    try:
        found = json.loads(text or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) and set(found) >= _FIELDS else None


def faults(report: Mapping[str, Any], settings: Settings, *, ready: bool) -> Iterator[str]:
    """What is wrong with a worker, by its heartbeat; nothing if it is well.

    A Redis that is away is no fault of the worker's: killing it would help nobody.

    Args:
        ready: whether it must also consume.
    """
    age = time.time() - report["written_at"]
    if age > STALE_S:
        yield f"its heartbeat is {age:.0f} s old"
    elif not _exists(report["pid"]):
        yield f"its process {report['pid']} is gone"
    age = max(0.0, age)
    yield from _net_faults(report["net"], settings, age)
    for index, slot in enumerate(report["slots"]):
        if (slot["busy_s"] or 0) + age > settings.hard_time_limit_s + _SLACK_S:
            yield f"slot {index} has worked on one job for {slot['busy_s']:.0f} s"
        elif slot["pid"] and (slot["quiet_s"] or 0) + age > STALE_S:
            yield f"slot {index} (process {slot['pid']}) is frozen"
    if ready and not (report["ready"] and report["net"]["ready"] and not report["leaving"]):
        yield "it is not ready"


def _net_faults(net: Mapping[str, Any], settings: Settings, age: float) -> Iterator[str]:
    if not net["process"] or not net["ready"]:
        return
    if (net["batch_in_flight_s"] or 0) + age > settings.net_timeout_s:
        yield f"its net process has worked on one batch for {net['batch_in_flight_s']:.0f} s"
    elif net["batch_in_flight_s"] is None and (net["quiet_s"] or 0) + age > STALE_S:
        yield f"its net process has been frozen for {net['quiet_s']:.0f} s"


def _age(since: float) -> Optional[float]:
    return round(now() - since, 3) if since else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)
