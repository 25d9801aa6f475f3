"""Processor time of a job by process: a null net at 64×48, keypoints only, beside Celery's own no-op task, in turns.

    python -m benchmarks.fleet cost

What the processes spend while there is no job is left out. Figures of processor time hardly change while others use
the machine; jobs a second do.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Callable, Dict, List

import psutil
import redis

from benchmarks.stand import kind_of, noop_worker, one_worker, small_picture, through
from worker.cli.local import embedded_redis

#: Milliseconds of a job that are to be reached, by process; and the share of the no-op tasks' rate.
_REACH_MS, _REACH_RATE = {"parent": 1.5, "slots": 3.5, "client": 1.2}, 0.6
_KINDS = ("parent", "slots", "net process", "client", "redis")
#: Turns that count, after one to warm up, and jobs of each.
_TURNS, _JOBS = 5, 400
_REST_S = 2.0


class _Meter:
    """Reads what the processes of one worker, its client and its Redis spend.

    Args:
        worker, server: their process ids; the client is this process.
    """

    def __init__(self, worker: int, server: int) -> None:
        parent = psutil.Process(worker)
        self._kinds = {one: kind_of(one, parent) for one in (parent, *parent.children(recursive=True))}
        self._kinds.update({psutil.Process(): "client", psutil.Process(server): "redis"})
        self._resting = self._by_second(lambda: time.sleep(_REST_S))
        #: Milliseconds of a job by kind of process, and jobs a second, a number for each turn.
        self.turns: Dict[str, List[float]] = defaultdict(list)

    def measure(self, run: Callable[[], object]) -> None:
        """Call `run`, which is _JOBS jobs, and note what each costs."""
        start = time.perf_counter()
        spent = self._by_second(run)
        rate = _JOBS / (time.perf_counter() - start)
        self.turns["rate"].append(rate)
        for kind, seconds in spent.items():
            self.turns[kind].append(max(0.0, seconds - self._resting[kind]) / rate * 1000)

    def median(self, kind: str) -> float:
        """Of the turns after the first."""
        return statistics.median(self.turns[kind][1:] or [0.0])

    def _by_second(self, run: Callable[[], object]) -> Dict[str, float]:
        before, start = self._seconds(), time.perf_counter()
        run()
        elapsed = time.perf_counter() - start
        return {kind: (after - before[kind]) / elapsed for kind, after in self._seconds().items()}

    def _seconds(self) -> Dict[str, float]:
        spent: Dict[str, float] = defaultdict(float)
        for process, kind in self._kinds.items():
            times = process.cpu_times()
            spent[kind] += times.user + times.system
        return spent


def run(folder: Path) -> None:
    """Print milliseconds of a job by process, ours and the no-op's, and the two rates."""
    image, options = small_picture(folder), {"overlay": False, "target_height": 64}
    with (
        embedded_redis() as url,
        noop_worker(url) as (child, noops),
        one_worker(url, folder, POSE_ENGINE="null") as (workers, client),
        redis.Redis.from_url(url) as server,
    ):
        redis_pid = int(server.info()["process_id"])
        ours, plain = _Meter(workers.children[0].pid, redis_pid), _Meter(child.pid, redis_pid)
        for _ in range(1 + _TURNS):
            plain.measure(lambda: noops(_JOBS))
            ours.measure(lambda: through(client, [image] * _JOBS, options))
    print(f"cost: processor time of a job, ms, median of {_TURNS} turns of {_JOBS}; load {os.getloadavg()[0]:.1f}")
    print(f"cost: {'':<12}{'pose':>8}{'no-op':>8}{'to reach':>10}")
    for kind in _KINDS:
        print(f"cost: {kind:<12}{ours.median(kind):>8.2f}{plain.median(kind):>8.2f}{_REACH_MS.get(kind, ''):>10}")
    totals = [sum(map(meter.median, _KINDS)) for meter in (ours, plain)]
    print(f"cost: {'together':<12}{totals[0]:>8.2f}{totals[1]:>8.2f}")
    rates = ours.turns["rate"], plain.turns["rate"]
    ratio = statistics.median(one / other for one, other in zip(rates[0][1:], rates[1][1:]))
    print(
        f"cost: {ours.median('rate'):.0f} jobs/s and {plain.median('rate'):.0f} no-op tasks/s, ratio {ratio:.2f}"
        f" (to reach {_REACH_RATE})"
    )
