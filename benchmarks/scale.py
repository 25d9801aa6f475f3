"""How far one broker carries: 1 to 32 workers on it, each with a null net in slow motion, as a table and a plot.

    python -m benchmarks.fleet scale [--most 32]

An H100 does some 300 images a second, which no 32 workers on a small machine can imitate. What can be imitated is their
number: a pass of the null net sleeps for 400 ms, so that two cores carry 32 workers. Measured are throughput, the wait
between submission and the beginning of work at an even load of 70 %, and what the broker spends: on each job, and on
each worker whether there are jobs or not. From these follows how many jobs a second one Redis can carry, for it runs
on one core.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np
import redis

from benchmarks import charts
from benchmarks.stand import ROOT, Spent, Workers, small_picture, through
from worker.cli.local import embedded_redis
from worker.client import PoseClient
from worker.jobs.ledger import Ledger

PLOT = ROOT / "benchmarks" / "fleet.png"
#: Milliseconds that a pass takes in slow motion.
_SLOW_MS = 400
#: Images a second of one H100, which the sum is made with.
_H100 = 300
_OPTIONS: Dict[str, Any] = {"overlay": False, "target_height": 64}


class Row(NamedTuple):
    """Workers; jobs a second at full load; median and p99 wait in ms at 70 %; the broker's microseconds and commands
    for a job, and its microseconds a second for each worker at rest."""

    workers: int
    rate: float
    wait_ms: float
    worst_ms: float
    job_us: float
    commands: float
    rest_us: float

    @property
    def ideal(self) -> float:
        """Jobs a second, were there nothing but nets."""
        return self.workers * 1000 / _SLOW_MS


def run(folder: Path, most: int) -> List[Row]:
    """Print and plot how throughput grows with workers."""
    charts.need_matplotlib()  # before minutes are spent
    image, rows = small_picture(folder), []
    print(
        f"scale: {'workers':>7}{'jobs/s':>8}{'of ideal':>9}{'wait p50 ms':>12}{'p99 ms':>8}"
        f"{'broker us/job':>14}{'commands':>9}{'us/s a worker at rest':>23}"
    )
    with embedded_redis() as url, PoseClient(url) as client, redis.Redis.from_url(url) as server:
        workers = Workers(url, folder, POSE_ENGINE="null", NULL_NET_MS=_SLOW_MS, POSE_SLOTS=1)
        try:
            while 2 ** len(rows) <= most:
                _grow(workers, 2 ** len(rows))
                rows.append(_row(server, client, image, 2 ** len(rows)))
                _print(rows[-1])
        finally:
            workers.stop()
    _conclude(rows)
    loads = [charts.Load(row.workers, row.rate, row.ideal, row.wait_ms, row.worst_ms) for row in rows]
    charts.fleet(loads, _SLOW_MS, PLOT)
    return rows


def _grow(workers: Workers, count: int) -> None:
    """Start as many as are missing, two at a time: starting is what takes a worker's most processor time."""
    while len(workers.children) < count:
        for _ in range(min(2, count - len(workers.children))):
            workers.add(f"cpu{len(workers.children)}")
        workers.await_ready()


def _row(server: redis.Redis, client: PoseClient, image: Path, workers: int) -> Row:
    jobs = max(40, 12 * workers)
    through(client, [image] * workers, _OPTIONS)
    at_rest = Spent(server)
    time.sleep(5)
    resting = at_rest.per_second()
    spent = Spent(server)
    rate = jobs / through(client, [image] * jobs, _OPTIONS, look_s=_SLOW_MS / 2000)
    job_us, commands, _ = spent.per_job(jobs, resting)
    waits = _waits(client, Ledger(server, "pose"), [image] * jobs, 0.7 * workers * 1000 / _SLOW_MS)
    middle, worst = np.percentile(waits, [50, 99])
    return Row(workers, rate, float(middle), float(worst), float(job_us), float(commands), resting[0] / workers)


def _waits(client: PoseClient, ledger: Ledger, images: Sequence[Path], rate: float) -> np.ndarray:
    """Milliseconds from submission to the beginning of work, at an even `rate` of jobs a second."""
    begun, jobs = time.perf_counter(), []
    for number, image in enumerate(images, 1):
        jobs.append(client.submit(image, **_OPTIONS))
        time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
    for job in jobs:
        job.result(60)
    records = [ledger.show(job.id) for job in jobs]
    return np.array([float(one["attempt:1"].split()[0]) - float(one["submitted"]) for one in records]) * 1000


def _print(row: Row) -> None:
    print(
        f"scale: {row.workers:>7}{row.rate:>8.1f}{row.rate / row.ideal:>9.2f}{row.wait_ms:>12.1f}{row.worst_ms:>8.1f}"
        f"{row.job_us:>14.0f}{row.commands:>9.1f}{row.rest_us:>23.0f}",
        flush=True,
    )


def _conclude(rows: Sequence[Row]) -> None:
    """How many GPUs keep one core busy: each spends on its jobs, and a little on being there."""
    job_us = float(np.median([row.job_us for row in rows[-2:]]))
    gpus = 1e6 / (_H100 * job_us + rows[-1].rest_us)
    print(
        f"scale: at {job_us:.0f} us a job, one core of Redis carries {1e6 / job_us:.0f} jobs/s: {gpus:.0f} GPUs of "
        f"{_H100} images/s each, or {0.6 * gpus:.0f} with room to spare (60 % busy)"
    )
