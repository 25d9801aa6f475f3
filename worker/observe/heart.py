"""Writes a worker's heartbeat, every second: to a file on its host, and to Redis."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from typing import Any, Dict, Optional

from redis import Redis, RedisError

from worker.device import board as boards
from worker.device.board import Board, now
from worker.device.gpus import MemoryWatch
from worker.device.pin import Device, own_engine, own_precision
from worker.files import write_whole
from worker.observe.heartbeat import STALE_S, heartbeat_path
from worker.servers import Keys, connect
from worker.settings import Settings

#: Seconds between two heartbeats.
_BEAT_S = 1.0
#: Seconds for which Redis is left alone after it did not answer.
_OUTAGE_S = 5.0


class Heart:
    """Writes one worker's heartbeat.

    Args:
        name: the worker's, ``gpu3@host``.
        memory: the device's.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        device: Device,
        board: Board,
        slots: int,
        memory: Optional[MemoryWatch] = None,
    ) -> None:
        self._settings, self._name, self._device, self._board, self._slots = settings, name, device, board, slots
        self._memory = memory or MemoryWatch(None)
        self._path = None if str(settings.heartbeat_dir) == "none" else heartbeat_path(settings.heartbeat_dir, name)
        keys = Keys(settings.key_prefix)
        self._key, self._serves = keys.worker(name), [keys.serves(queue) for queue in settings.consumed]
        self._redis: Optional[Redis] = None
        if settings.results_url:
            self._redis = connect(settings.results_url, timeout_s=0.5)
        self._next = self._redis_again = 0.0
        self._before = (now(), 0)
        self._rate = 0.0
        self._started = time.time()
        #: Whether the worker consumes.
        self.ready = False
        #: Whether it was asked to take no jobs for a while.
        self.paused = False
        #: Whether it died too often, and is not started for a while.
        self.benched = False

    def beat(self, restarts: int = 0) -> None:
        """Write the heartbeat, at most once a second; a disk or a Redis that is away changes nothing."""
        if now() < self._next:
            return
        self._next = now() + _BEAT_S
        report = self.report(restarts)
        text = json.dumps(report)
        if self._path is not None:
            with contextlib.suppress(OSError):
                write_whole(self._path, text.encode())
        if self._redis is not None and now() >= self._redis_again:
            try:
                self._tell(self._redis, text, report["ready"] and not (report["paused"] or report["leaving"]))
            except RedisError:
                self._redis_again = now() + _OUTAGE_S

    def _tell(self, client: Redis, text: str, takes_jobs: bool) -> None:
        with client.pipeline(transaction=False) as pipe:
            pipe.set(self._key, text, px=int(STALE_S * 1000))
            for key in self._serves if takes_jobs else ():  # so that whoever waits on a queue knows
                pipe.set(key, self._name, px=int(STALE_S * 1000))
            pipe.execute()

    def stop(self) -> None:
        """Take the heartbeat away: this worker has left in good order."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._redis is not None:
            with contextlib.suppress(RedisError):
                self._redis.delete(self._key)

    def report(self, restarts: int) -> Dict[str, Any]:
        """What is written. Ages are in seconds."""
        net = self._board.net
        rows = [self._board.slot(index) for index in range(self._slots)]
        done = sum(row.done for row in rows)
        used = self._memory.seen
        return {
            "worker": self._name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "written_at": round(time.time(), 3),
            "started_at": round(self._started, 3),
            "ready": self.ready,
            "paused": self.paused,
            "benched": self.benched,
            "leaving": self._board.worker.leaving,
            "device": str(self._device),
            "memory_used": used.used if used else None,
            "memory_total": used.total if used else None,
            "net": {
                "model": self._settings.model,
                "engine": own_engine(self._settings, self._device.torch_name),
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


def _age(since: float) -> Optional[float]:
    return round(now() - since, 3) if since else None
