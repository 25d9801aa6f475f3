"""What the fleet costs beside the net: the channel, the queue, and how far one broker carries.

    make bench-fleet    (or: python -m benchmarks.fleet [part …] [--most 32])

- start: how long a local run of three images takes to its first picture, and to its end; see benchmarks/start.py.
- channel: one frame of 368×656 to the net process and its maps back, with a net that does nothing.
- cost: processor time of a job by process, beside Celery's own no-op; see benchmarks/cost.py.
- rate: jobs of a null net a second, beside Celery's own no-op tasks a second in the same run, taking turns.
- net: the default net through the queue, beside the same estimator in a bare loop with the same threads, taking turns.
- threads: under load, the threads of each of a worker's processes, those of OpenCV, BLAS and torch among them, and how
  many of them compute.
- scale: 1 to 32 workers on one broker; see benchmarks/scale.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import cv2
import psutil
import redis

from benchmarks import cost, scale, start
from benchmarks.stand import Spent, kind_of, noop_worker, one_worker, photograph, small_picture, through
from worker.cli.local import embedded_redis
from worker.device.board import Board
from worker.device.channel import RemoteNet
from worker.device.net_process import NetProcess
from worker.device.pin import Device
from worker.engine import load, read_manifest
from worker.pose.estimator import EstimateOptions, Estimator
from worker.settings import read_settings

#: What is to be reached: milliseconds of a round trip, and shares.
ROUND_TRIP_MS, OF_NOOP, OF_BARE = 0.3, 0.6, 0.95
#: Images in each turn of the default net.
_IMAGES = 20


def channel(folder: Path) -> None:
    """Print the round trip of a frame."""
    os.environ["POSE_ENGINE"] = "null"  # the net process reads it itself
    configured = read_settings(os.environ)
    host = NetProcess(configured, Device(), "cpu0@benchmark", Board.create())
    host.launch()
    host.await_ready()
    net = RemoteNet(host.address, read_manifest(configured.models_dir / configured.model), timeout_s=10)
    spent = []
    for _ in range(2000):
        net.begin()
        frame = net.empty((1, 368, 656, 3))
        frame[...] = 7
        begun = time.perf_counter()
        net(frame)
        spent.append((time.perf_counter() - begun) * 1000)
        net.end()
    host.stop(5)
    del os.environ["POSE_ENGINE"]
    median = statistics.median(spent)
    print(
        f"channel: a frame of 368x656 and its maps, {median:.3f} ms there and back (median of {len(spent)}; the "
        f"fastest tenth takes up to {statistics.quantiles(spent, n=10)[0]:.3f}); to reach {ROUND_TRIP_MS}, "
        f"ratio {ROUND_TRIP_MS / median:.2f}"
    )


def rate(folder: Path) -> None:
    """Print jobs a second of a null net beside Celery's no-op tasks, and what the broker spends on each."""
    small, usual = small_picture(folder), photograph(folder)
    kinds = {
        "64x48, keypoints only": (small, {"overlay": False, "target_height": 64}),
        "640x480, keypoints only": (usual, {"overlay": False}),
        "640x480, keypoints and picture": (usual, {}),
    }
    plain: List[float] = []
    found: Dict[str, List[float]] = {title: [] for title in kinds}
    spent_by = {}
    with (
        embedded_redis() as url,
        noop_worker(url) as (_, noops),
        one_worker(url, folder, POSE_ENGINE="null") as (_, client),
        redis.Redis.from_url(url) as server,
    ):
        at_rest = Spent(server)
        time.sleep(2)
        resting = at_rest.per_second()
        for count in (50, 300, 300, 300):
            plain.append(noops(count))
            for title, (image, options) in kinds.items():
                spent = Spent(server)
                found[title].append(count / through(client, [image] * count, options))
                spent_by[title] = spent.per_job(count, resting)
    plain, found = plain[1:], {title: rates[1:] for title, rates in found.items()}  # without the first, to warm up
    noop = statistics.median(plain)
    print(f"rate: Celery's own no-op tasks {noop:.0f}/s")
    for title in kinds:
        ratio = statistics.median(one / other for one, other in zip(found[title], plain))
        spent_us, commands, traffic = spent_by[title]
        print(
            f"rate: null net, {title}: {statistics.median(found[title]):.0f}/s, ratio {ratio:.2f} (to reach {OF_NOOP});"
            f" of the broker {spent_us:.0f} us, {commands:.1f} commands, {traffic / 1000:.0f} kB a job"
        )


def net(folder: Path) -> None:
    """Print images a second of the default net through the queue, beside a bare loop."""
    image, threads = photograph(folder), len(os.sched_getaffinity(0))
    loaded = load(read_settings({}).models_dir / "mobilenet_thin", threads=threads)
    spec = loaded.manifest
    estimator = Estimator(loaded, stride=spec.input.stride, offset=spec.heatmaps.offset)
    pairs: List[Tuple[float, float]] = []
    with embedded_redis() as url, one_worker(url, folder) as (_, client):
        for _ in range(5):
            begun = time.perf_counter()
            for _ in range(_IMAGES):
                estimator.estimate([cv2.imread(str(image))], EstimateOptions())
            bare = _IMAGES / (time.perf_counter() - begun)
            pairs.append((_IMAGES / through(client, [image] * _IMAGES, {"overlay": False}), bare))
    queue, bare = (statistics.median(side) for side in zip(*pairs[1:]))
    ratio = statistics.median(one / other for one, other in pairs[1:])
    print(f"net: through the queue {queue:.2f}/s, in a bare loop {bare:.2f}/s, ratio {ratio:.2f} (to reach {OF_BARE})")


def threads(folder: Path) -> None:
    """Print each process's threads while a worker is under load, and how many of them compute."""
    image, cores = photograph(folder), len(os.sched_getaffinity(0))
    with embedded_redis() as url, one_worker(url, folder) as (workers, client):
        through(client, [image] * 5, {})
        parent = psutil.Process(workers.children[0].pid)
        family = [parent, *parent.children(recursive=True)]
        before = {one.pid: _thread_times(one) for one in family}
        begun = time.perf_counter()
        through(client, [image] * 30, {})
        spent = time.perf_counter() - begun
        most = 0
        for one in family:
            busy = [after - before[one.pid].get(tid, 0.0) for tid, after in _thread_times(one).items()]
            # A thread that computes is one of a library's pool; heartbeats and watches take next to nothing.
            mine = sum(seconds > 0.02 * spent for seconds in busy)
            print(
                f"threads: {kind_of(one, parent):<12}{one.num_threads():>3} threads, {mine} compute, "
                f"{sum(busy) / spent:.2f} cores busy"
            )
            most = max(most, mine)
    print(f"threads: {cores} cores; no process has more than {most} threads that compute, ratio {most / cores:.2f}")


def _thread_times(process: psutil.Process) -> Dict[int, float]:
    return {one.id: one.user_time + one.system_time for one in process.threads()}


PARTS: Dict[str, Callable[[Path], None]] = {
    "start": start.run,
    "channel": channel,
    "cost": cost.run,
    "rate": rate,
    "net": net,
    "threads": threads,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}, scale; all if none is named")
    parser.add_argument("--most", type=int, default=32, help="workers in the largest fleet")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - {*PARTS, "scale"}
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    for name in arguments.parts or [*PARTS, "scale"]:
        with tempfile.TemporaryDirectory(prefix="pose-bench-") as folder:
            if name == "scale":
                scale.run(Path(folder), arguments.most)
            else:
                PARTS[name](Path(folder))


if __name__ == "__main__":
    main()
