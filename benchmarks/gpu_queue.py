"""The part of benchmarks.gpu that goes through the queue: one worker as it is started by default, and its clients."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

import cv2
import numpy as np

from benchmarks.gpu_net import Figures
from benchmarks.gpu_plan import Plan, prepared
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
    directory = prepared(name, folder)
    variables = {
        "POSE_MODELS_DIR": directory.parent,
        "POSE_MODEL": directory.name,
        "POSE_DEVICE": plan.device,
        "POSE_PRECISION": plan.precision,
        "POSE_WARM_SIZES": "368x496" if plan.device != "cpu" else f"{plan.size[0]}x{plan.size[1]}",
    }
    height = {"target_height": plan.size[0]}
    one, mix = [photograph(folder)], mixed(folder)
    loads = (
        Load("one shape, one client", one, 1, height),
        Load("one shape", one, plan.clients, height),
        Load("one shape, keypoints only", one, plan.clients, {**height, "overlay": False}),
        Load("mixed shapes", mix, plan.clients, height),
    )
    found: List[float] = []
    with (
        embedded_redis() as url,
        one_worker(url, folder, name="bench", **variables) as (workers, client),
        ExitStack() as stack,
    ):
        clients = [client, *(stack.enter_context(PoseClient(url)) for _ in range(plan.clients - 1))]
        for load in loads:
            _push(load, clients, min(200, plan.jobs), [])
            results: List[Result] = []
            before = _frames(workers)
            rate = plan.jobs / _push(load, clients, plan.jobs, results)
            frames, passes = (now - then for now, then in zip(_frames(workers), before))
            people = statistics.mean(len(result.people) for result in results)
            print(
                f"queue, {name}, {load.title}, {load.clients} at once: {rate:.1f}/s, "
                f"{frames / max(1, passes):.1f} frames a pass, {people:.1f} people in each",
                flush=True,
            )
            _stages("  a job's milliseconds", results)
            found.append(rate)
        _alone(name, client, one[0], height, min(50, plan.jobs))
        [report] = read_heartbeats(workers.beats)
    if report["memory_used"] is not None:
        print(f"queue, {name}: {report['memory_used'] / 1e9:.2f} GB of the device in use, CUDA's own included")
    return {"one": found[1], "mixed": found[3]} if name == plan.queued[0] else {}


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
    time.sleep(1.5)  # until the next heartbeat
    [report] = read_heartbeats(workers.beats)
    return [report["net"]["frames"], report["net"]["batches"]]
