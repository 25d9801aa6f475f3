"""The part of benchmarks.gpu that goes through the queue: one worker as it is started by default, and its clients."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from benchmarks.gpu_net import Figures
from benchmarks.gpu_plan import MIXED, ONE, Plan, prepared
from benchmarks.stand import ROOT, Workers, one_worker, photograph, through
from worker.cli.local import embedded_redis
from worker.client import PoseClient
from worker.contract import Result
from worker.observe.heartbeat import read_heartbeats

#: Widths and heights of photographs as COCO has them, and how many of twenty have them. At height 368 they make inputs
#: of eight widths.
SIZES = {
    (640, 480): 7,
    (640, 427): 4,
    (640, 426): 2,
    (480, 640): 2,
    (427, 640): 1,
    (612, 612): 1,
    (640, 360): 1,
    (640, 512): 1,
    (500, 375): 1,
}
#: What a worker's result says of its time; the rest of the time until the client has it is the queue's.
STAGES = ("decode", "preprocess", "net", "associate", "overlay", "store")


class Load(NamedTuple):
    """One row: what is sent, by how many clients, with which options."""

    title: str
    images: Sequence[Path]
    clients: int
    options: Dict[str, Any]


def mixed(folder: Path) -> List[Path]:
    """Twenty JPEGs of COCO's sizes, with people in them, in an order from a seed."""
    samples = {name: cv2.imread(str(ROOT / "samples" / f"{name}.jpg")) for name in ("zidane", "bus")}
    paths = []
    for (width, height), count in SIZES.items():
        picture = samples["zidane" if width >= height else "bus"]
        path = folder / f"{width}x{height}.jpg"
        cv2.imwrite(str(path), cv2.resize(_cropped(picture, width / height), (width, height)))
        paths += [path] * count
    return [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]


def _cropped(picture: np.ndarray, ratio: float) -> np.ndarray:
    """The middle of `picture`, as large as can be, as many times as wide as it is high as `ratio` says."""
    height, width = picture.shape[:2]
    kept_width, kept_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return picture[top : top + kept_height, left : left + kept_width]


def queue(plan: Plan, folder: Path, figures: Figures, name: str) -> Figures:
    """The net `name`: images a second for one shape and for COCO's mix, and where the time of a job goes."""
    asked = loads(plan, folder)
    with _serving(plan, folder, name) as (workers, clients):
        seen = [0, 0]
        rates = {}
        for title, load in asked.items():
            rates[title], seen = _measured(f"queue, {name}", plan, load, workers, clients, seen)
        height = {"target_height": plan.size[0]}
        _alone(name, clients[0], asked[ONE].images[0], height, min(50, plan.jobs))
        [report] = read_heartbeats(workers.beats)
    if report["memory_used"] is not None:
        print(f"queue, {name}: {report['memory_used'] / 1e9:.2f} GB of the device in use, CUDA's own included")
    return {"one": rates[ONE], "mixed": rates[MIXED]} if name == plan.queued[0] else {}


def settings(plan: Plan, folder: Path, figures: Figures) -> Figures:
    """The first net with other settings than the worker's own, each beside what it is without."""
    for changes, title in plan.settings:
        words = " ".join(f"{name}={value}" for name, value in changes.items())
        with _serving(plan, folder, plan.queued[0], **changes) as (workers, clients):
            load = loads(plan, folder)[title]
            rate, _ = _measured(f"queue, {plan.queued[0]}, {words}", plan, load, workers, clients, [0, 0])
        known = {ONE: "one", MIXED: "mixed"}[title]
        print(f"  {rate:.1f}/s with {words}, {figures.get(known, float('nan')):.1f}/s without")
    return {}


def loads(plan: Plan, folder: Path) -> Dict[str, Load]:
    """What a worker is asked for, by title."""
    height, one = {"target_height": plan.size[0]}, [photograph(folder)]
    rows = (
        Load(f"{ONE}, one client", one, 1, height),
        Load(ONE, one, plan.clients, height),
        Load(f"{ONE}, keypoints only", one, plan.clients, {**height, "overlay": False}),
        Load(MIXED, mixed(folder), plan.clients, height),
    )
    return {load.title: load for load in rows}


@contextmanager
def _serving(plan: Plan, folder: Path, name: str, **changes: Any) -> Iterator[Tuple[Workers, List[PoseClient]]]:
    """A worker of the net `name`, as it is by default but for `changes`, and its clients."""
    directory = prepared(name, folder)
    variables = {
        "POSE_MODELS_DIR": directory.parent,
        "POSE_MODEL": directory.name,
        "POSE_DEVICE": plan.device,
        "POSE_PRECISION": plan.precision,
        "POSE_WARM_SIZES": "368x496" if plan.device != "cpu" else f"{plan.size[0]}x{plan.size[1]}",
        **changes,
    }
    with ExitStack() as stack:
        url = stack.enter_context(embedded_redis())
        workers, client = stack.enter_context(one_worker(url, folder, name="bench", **variables))
        yield workers, [client, *(stack.enter_context(PoseClient(url)) for _ in range(plan.clients - 1))]


def _measured(
    title: str, plan: Plan, load: Load, workers: Workers, clients: Sequence[PoseClient], seen: Sequence[int]
) -> Tuple[float, List[int]]:
    """Images a second of `load`, once its first jobs have been done; frames and passes of the net process by then.

    Args:
        seen: those before.
    """
    first: List[Result] = []
    results: List[Result] = []
    _push(load, clients, min(200, plan.jobs), first)
    rate = plan.jobs / _push(load, clients, plan.jobs, results)
    after = _frames(workers)
    frames, passes = (now - then for now, then in zip(after, seen))
    people = statistics.mean(len(result.people) for result in results)
    print(
        f"{title}, {load.title}, {load.clients} at once: {rate:.1f}/s, {frames / max(1, passes):.1f} frames a pass, "
        f"{people:.1f} people in each",
        flush=True,
    )
    _stages("  a job's milliseconds", results)
    spent = [sum(one.timings_ms[stage] for stage in STAGES) for one in first[:100]]
    slowest = first[int(np.argmax(spent))].timings_ms["net"]
    print(
        f"  the slowest of the first {len(spent)}: {max(spent):.1f} ms, of it the net {slowest:.1f}; "
        f"their median {statistics.median(spent):.1f}",
        flush=True,
    )
    return rate, after


def _push(load: Load, clients: Sequence[PoseClient], jobs: int, results: List[Result]) -> float:
    """Seconds that `jobs` take, of which each client has its part."""
    parts = [
        [load.images[i % len(load.images)] for i in range(number, jobs, load.clients)] for number in range(load.clients)
    ]
    start = time.perf_counter()
    with ThreadPoolExecutor(load.clients) as pool:
        for _ in pool.map(lambda pair: through(pair[0], pair[1], load.options, results=results), zip(clients, parts)):
            pass
    return time.perf_counter() - start


def _alone(name: str, client: PoseClient, image: Path, options: Dict[str, Any], jobs: int) -> None:
    """One job after the other: where the time goes when nobody waits for anybody."""
    results, waits = [], []
    for _ in range(jobs):
        start = time.perf_counter()
        results.append(client.submit(image, **options).result(60))
        waits.append(1000 * (time.perf_counter() - start))
    _stages(f"queue, {name}, one job after the other: {statistics.median(waits):.2f} ms; of it", results)


def _stages(title: str, results: Sequence[Result]) -> None:
    medians = (f"{stage} {statistics.median(one.timings_ms[stage] for one in results):.2f}" for stage in STAGES)
    print(f"{title}: {', '.join(medians)}")


def _frames(workers: Workers) -> List[int]:
    """Frames and passes of the net process so far."""
    time.sleep(1.2)  # until the next heartbeat
    [report] = read_heartbeats(workers.beats)
    return [report["net"]["frames"], report["net"]["batches"]]
