"""What the fleet costs beside the net: the channel, the queue, and how far one broker carries.

    make bench-fleet    (or: python -m benchmarks.fleet [channel] [rate] [net] [scale] [--most 32])

- channel: one frame of 368×656 to the net process and its maps back, with a net that does nothing.
- rate: jobs of a null net a second, beside Celery's own no-op tasks a second in the same run.
- net: the default net through the queue, beside the same estimator in a bare loop with the same threads.
- scale: 1 to 32 workers on one broker, each with a null net in slow motion: a pass takes 400 ms where an H100 takes
  some 3, so that two cores carry 32 workers. Throughput, the wait at an even load, and what the broker spends on a job,
  from which follows how many jobs a second it can carry.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np
import redis

from worker.client import PoseClient
from worker.device.board import Board
from worker.device.channel import RemoteNet
from worker.device.host import NetHost
from worker.device.pin import Device
from worker.engine import load, read_manifest
from worker.fleet import worker_command
from worker.health import read_heartbeats
from worker.ledger import Ledger
from worker.local import embedded_redis
from worker.pose import EstimateOptions, Estimator
from worker.processes import start_child, stop_child
from worker.settings import read_settings

ROOT = Path(__file__).resolve().parent.parent
PLOT = ROOT / "benchmarks" / "fleet.png"
#: Milliseconds that a pass takes in slow motion.
_SLOW_MS = 400


def channel() -> None:
    """Print the round trip of a frame."""
    os.environ["POSE_ENGINE"] = "null"  # the net process reads it itself
    configured = read_settings(os.environ)
    host = NetHost(configured, Device(), "cpu0@benchmark", Board.create())
    host.start()
    net = RemoteNet(host.address, read_manifest(configured.models_dir / configured.model), timeout_s=10)
    spent = []
    for _ in range(400):
        net.begin()
        frame = net.empty((1, 368, 656, 3))
        frame[...] = 7
        start = time.perf_counter()
        net(frame)
        spent.append((time.perf_counter() - start) * 1000)
        net.end()
    host.stop(5)
    del os.environ["POSE_ENGINE"]
    print(f"channel: a frame of 368x656 and its maps, {statistics.median(spent):.3f} ms there and back (median of 400)")


@contextmanager
def workers(url: str, count: int, folder: Path, **variables: Any) -> Iterator[None]:
    """`count` workers, ready."""
    chosen = {"POSE_BROKER_URL": url, "POSE_IMAGE_ROOTS": folder, "POSE_HEARTBEAT_DIR": folder / "beats", **variables}
    environment = {**os.environ, **{name: str(value) for name, value in chosen.items()}}
    children: List[subprocess.Popen] = []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        for number in range(count):
            command = worker_command(f"cpu{number}", log_level="ERROR")
            children.append(start_child(command, env=environment, cwd=ROOT, **quiet))
            _await(lambda ready=number + 1: sum(one["ready"] for one in read_heartbeats(folder / "beats")) == ready)
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            stop_child(child, grace_s=10)


def rate(folder: Path) -> None:
    """Print jobs a second of a null net beside Celery's no-op tasks."""
    small, usual = folder / "small.jpg", _photograph(folder)
    cv2.imwrite(str(small), np.full((48, 64, 3), 128, np.uint8))
    with embedded_redis() as url:
        plain = _noop_rate(url, 2000)
        print(f"rate: Celery's own no-op tasks {plain:.0f}/s")
        with workers(url, 1, folder, POSE_ENGINE="null"), PoseClient(url) as client:
            for title, image, options in (
                ("64x48, keypoints only", small, {"overlay": False, "target_height": 64}),
                ("640x480, keypoints only", usual, {"overlay": False}),
                ("640x480, keypoints and picture", usual, {}),
            ):
                _through(client, [image] * 100, options)
                found = 1500 / _through(client, [image] * 1500, options)
                print(f"rate: null net, {title}: {found:.0f}/s, ratio {found / plain:.2f}")


def net(folder: Path) -> None:
    """Print images a second of the default net through the queue, beside a bare loop."""
    image, count, threads = _photograph(folder), 60, len(os.sched_getaffinity(0))
    with embedded_redis() as url, workers(url, 1, folder), PoseClient(url) as client:
        _through(client, [image] * 10, {"overlay": False})
        queue = count / _through(client, [image] * count, {"overlay": False})
    loaded = load(read_settings({}).models_dir / "mobilenet_thin", threads=threads)
    estimator = Estimator(loaded, offset=loaded.manifest.heatmaps.offset)

    def once() -> None:
        estimator.estimate([cv2.imread(str(image))], EstimateOptions())

    for _ in range(5):
        once()
    start = time.perf_counter()
    for _ in range(count):
        once()
    bare = count / (time.perf_counter() - start)
    print(f"net: through the queue {queue:.2f}/s, in a bare loop {bare:.2f}/s, ratio {queue / bare:.2f}")


class Scale(NamedTuple):
    """One row: workers, jobs a second at full load, p50 and p99 wait in ms at 70 % load, the broker's cost of a job."""

    workers: int
    rate: float
    wait_ms: float
    worst_ms: float
    broker_us: float
    commands: float


def scale(folder: Path, most: int) -> List[Scale]:
    """Print and plot how throughput grows with workers."""
    small = folder / "small.jpg"
    cv2.imwrite(str(small), np.full((48, 64, 3), 128, np.uint8))
    told = {"POSE_ENGINE": "null", "NULL_NET_MS": str(_SLOW_MS), "POSE_SLOTS": 1}
    rows = []
    print(f"scale: {'workers':>8}{'jobs/s':>9}{'of ideal':>10}{'wait p50':>10}{'p99 ms':>8}{'broker us/job':>15}")
    count = 1
    while count <= most:
        with embedded_redis() as url, workers(url, count, folder, **told), PoseClient(url) as client:
            rows.append(_scale_row(url, client, small, count))
        row = rows[-1]
        ideal = count * 1000 / _SLOW_MS
        print(
            f"scale: {count:>8}{row.rate:>9.1f}{row.rate / ideal:>10.2f}{row.wait_ms:>10.1f}{row.worst_ms:>8.1f}"
            f"{row.broker_us:>15.0f}   ({row.commands:.1f} commands a job)",
            flush=True,
        )
        count *= 2
    carries = 1e6 / statistics.median(row.broker_us for row in rows[-2:])
    print(f"scale: one core of Redis carries some {carries:.0f} jobs/s: {carries / 300:.0f} GPUs of 300 images/s each")
    cv2.imwrite(str(PLOT), _plot(rows))
    return rows


def _scale_row(url: str, client: PoseClient, image: Path, workers: int) -> Scale:
    options = {"overlay": False, "target_height": 64}
    jobs = max(20, 12 * workers)
    _through(client, [image] * workers, options)
    with redis.Redis.from_url(url) as server:
        idle = _spent(server)
        time.sleep(2)
        resting = [(after - before) / 2 for before, after in zip(idle, _spent(server))]
        before, start = _spent(server), time.perf_counter()
        found = jobs / _through(client, [image] * jobs, options)
        seconds, after = time.perf_counter() - start, _spent(server)
        cost, commands = ((b - a - rest * seconds) / jobs for a, b, rest in zip(before, after, resting))
        waits = _waits(client, Ledger(server, "pose"), [image] * jobs, options, 0.7 * workers * 1000 / _SLOW_MS)
    return Scale(workers, found, float(np.median(waits)), float(np.percentile(waits, 99)), max(0.0, cost), commands)


def _waits(client: PoseClient, ledger: Ledger, images: List[Path], options: Dict[str, Any], rate: float) -> np.ndarray:
    """Milliseconds from submission to the beginning of work, at an even `rate` of jobs a second."""
    begun, jobs = time.perf_counter(), []
    for number, image in enumerate(images, 1):
        jobs.append(client.submit(image, **options))
        time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
    for job in jobs:
        job.result(60)
    records = [ledger.show(job.id) for job in jobs]
    return np.array([float(one["attempt:1"].split()[0]) - float(one["submitted"]) for one in records]) * 1000


def _spent(server: redis.Redis) -> Tuple[float, float]:
    """Microseconds of processor time and commands that the broker has spent."""
    used: Any = server.info()
    return (used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6, float(used["total_commands_processed"])


def _through(client: PoseClient, images: Sequence[Path], options: Dict[str, Any]) -> float:
    """Seconds that the images take through the queue, all submitted at once."""
    start = time.perf_counter()
    waiting = [client.submit(image, **options).id for image in images]
    while waiting:  # a few at a time: asking for all would be work of its own
        ended = dict(client.ended(waiting[:20]))
        for outcome in ended.values():
            if isinstance(outcome, Exception):
                raise outcome
        waiting = [job_id for job_id in waiting if job_id not in ended]
        time.sleep(0.02 if not ended else 0)
    return time.perf_counter() - start


def _noop_rate(url: str, count: int) -> float:
    os.environ["NOOP_URL"] = url
    from benchmarks.noop import app, noop

    command = [sys.executable, "-m", "celery", "--app", "benchmarks.noop", "worker", "--loglevel", "ERROR"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = start_child([*command, "--concurrency", "2"], cwd=ROOT, **quiet)
    try:
        noop.delay().get(timeout=60)
        start = time.perf_counter()
        waiting = [noop.delay().id for _ in range(count)]
        while app.backend.client.exists(*(app.backend.get_key_for_task(one) for one in waiting)) < count:
            time.sleep(0.02)
        return count / (time.perf_counter() - start)
    finally:
        stop_child(child, grace_s=10)


def _photograph(folder: Path) -> Path:
    """A JPEG of 640×480."""
    path = folder / "640x480.jpg"
    picture = cv2.imread(str(ROOT / "samples" / "zidane.jpg"))
    cv2.imwrite(str(path), cv2.resize(picture[:, 160:1120], (640, 480), interpolation=cv2.INTER_AREA))
    return path


def _await(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit("the workers did not get ready within 120 s")
        time.sleep(0.05)


def _plot(rows: Sequence[Scale]) -> np.ndarray:
    """Jobs a second against workers, both in steps of two, beside the ideal."""
    width, height, left, bottom = 760, 460, 70, 60
    picture = np.full((height, width, 3), 255, np.uint8)
    steps = max(1.0, float(np.log2(rows[-1].workers)))
    most = rows[-1].workers * 1000 / _SLOW_MS

    def place(workers: float, rate: float) -> Tuple[int, int]:
        across, up = np.log2(workers) / steps, np.log2(max(rate, 1)) / np.log2(most)
        return round(left + across * (width - left - 40)), round(height - bottom - up * (height - bottom - 30))

    def text(words: str, at: Tuple[int, int]) -> None:
        cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (60, 60, 60), 1, cv2.LINE_AA)

    for row in rows:
        foot = place(row.workers, 1)
        cv2.line(picture, foot, place(row.workers, most), (228, 228, 228), 1)
        text(str(row.workers), (foot[0] - 6, foot[1] + 20))
    ideal = [place(row.workers, row.workers * 1000 / _SLOW_MS) for row in rows]
    found = [place(row.workers, row.rate) for row in rows]
    cv2.polylines(picture, [np.array(ideal)], False, (180, 180, 180), 2, cv2.LINE_AA)
    cv2.polylines(picture, [np.array(found)], False, (40, 80, 220), 2, cv2.LINE_AA)
    for row, at in zip(rows, found):
        cv2.circle(picture, at, 4, (40, 80, 220), -1, cv2.LINE_AA)
        text(f"{row.rate:.0f}", (at[0] - 30, at[1] - 8))
    text("jobs/s through one broker (grey: ideal)", (left, 20))
    text("workers, one slot each, 400 ms a pass", (width // 2 - 130, height - 14))
    return picture


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["channel", "rate", "net", "scale"])
    parser.add_argument("--most", type=int, default=32, help="workers in the largest fleet")
    told = parser.parse_args()
    if "channel" in told.parts:
        channel()
    for part in told.parts:
        with tempfile.TemporaryDirectory() as folder:
            if part == "rate":
                rate(Path(folder))
            elif part == "net":
                net(Path(folder))
            elif part == "scale":
                scale(Path(folder), told.most)


if __name__ == "__main__":
    main()
