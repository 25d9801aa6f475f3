"""The same person under the same number: this tracker beside two others, on crowds whose numbers are known.

    python -m benchmarks.tracking [--seeds 4]

Crowds are those of tests.support.crowd: people walk and turn back, cross, hide one another, come and go; joints and
people are missed, and some are found where nobody is. Beside this tracker stand one that assigns boxes by their
overlap, the nearest first, and norfair with the mean distance of joints in heights of the person.
"""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from tests.support.crowd import Frame, Scene, Score, score, walk
from worker.pose.skeletons import COCO_18
from worker.pose.tracking import Tracker

SCENES = {
    "10 people": Scene(),
    "25 people": Scene(people=25),
    "15 fast people": Scene(people=15, speed=1.8),
    "15 people, 10 frames a second": Scene(people=15, fps=10),
    "10 people, 5 frames a second": Scene(people=10, fps=5),
    "15 people, badly seen": Scene(people=15, noise=1.0, missed_people=0.1),
}
#: Seconds for which each tracker remembers who is out of sight.
MEMORY_S = 1.0
_OVERLAP = 0.3

Ids = List[np.ndarray]


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="crowds of each kind")
    seeds = range(1000, 1000 + parser.parse_args().seeds)
    logging.disable(logging.WARNING)  # norfair's advice on distance functions
    print("| crowd | tracker | switches | ids of people | MOTA | IDF1 | association (HOTA) | ms a frame |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, scene in SCENES.items():
        crowds = [walk(scene, seed) for seed in seeds]
        for tracker in (_ours, _boxes, _norfair):
            print(f"| {name} | {tracker.__name__.strip('_')} | {_row(crowds, tracker, scene)} |", flush=True)


def _row(crowds: List[List[Frame]], tracker: Callable[[List[Frame], float], Ids], scene: Scene) -> str:
    scores: List[Score] = []
    taken = 0.0
    for frames in crowds:
        begun = time.process_time()
        ids = tracker(frames, scene.fps)
        taken += time.process_time() - begun
        scores.append(score(frames, ids))
    people = sum(len({int(who) for frame in frames for who in frame.truth}) for frames in crowds)
    figures = [f"{np.mean([getattr(s, name) for s in scores]):.3f}" for name in ("mota", "idf1", "association")]
    switches, ids_given = (sum(getattr(s, name) for s in scores) for name in ("switches", "ids"))
    milliseconds = 1000 * taken / sum(map(len, crowds))
    return " | ".join([str(switches), f"{ids_given} of {people}", *figures, f"{milliseconds:.2f}"])


def _ours(frames: List[Frame], fps: float) -> Ids:
    tracker = Tracker(np.array(COCO_18.sigmas))
    return [tracker.update(frame.keypoints, frame.time_s) for frame in frames]


def _boxes(frames: List[Frame], fps: float) -> Ids:
    known: Dict[int, Tuple[np.ndarray, float]] = {}
    ids: Ids = []
    for frame in frames:
        boxes = (
            np.stack([_box(keypoints) for keypoints in frame.keypoints]) if len(frame.keypoints) else np.zeros((0, 4))
        )
        known = {number: one for number, one in known.items() if frame.time_s - one[1] <= MEMORY_S}
        pairs = [(_overlap(box, boxes[i]), number, i) for number, (box, _) in known.items() for i in range(len(boxes))]
        given = np.full(len(boxes), -1, np.int64)
        for overlap, number, i in sorted(pairs, reverse=True):
            if overlap >= _OVERLAP and given[i] < 0 and number not in given:
                given[i] = number
        new = np.flatnonzero(given < 0)
        given[new] = np.arange(len(new)) + (max((int(one.max()) for one in ids if len(one)), default=-1) + 1)
        known.update({int(number): (box, frame.time_s) for number, box in zip(given, boxes)})
        ids.append(given)
    return ids


def _box(keypoints: np.ndarray) -> np.ndarray:
    found = keypoints[keypoints[:, 2] > 0, :2]
    return np.concatenate([found.min(0), found.max(0)]) if len(found) else np.zeros(4)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    inner = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(inner / max(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner, 1e-9))


def _norfair(frames: List[Frame], fps: float) -> Ids:
    import norfair

    tracker = norfair.Tracker(
        distance_function=_mean_distance,
        distance_threshold=0.4,
        initialization_delay=0,
        hit_counter_max=int(MEMORY_S * fps),
        detection_threshold=0.1,
    )
    ids: Ids = []
    for number, frame in enumerate(frames):
        found = [
            norfair.Detection(points=np.nan_to_num(one[:, :2].astype(float)), scores=one[:, 2].astype(float))
            for one in frame.keypoints
        ]
        tracker.update(found)
        # Who got no id, as norfair leaves out some, is somebody else each time.
        given = np.arange(len(found)) + 10**6 * (number + 1)
        for person in tracker.get_active_objects():
            given[[i for i, one in enumerate(found) if one is person.last_detection]] = person.id
        ids.append(given)
    return ids


def _mean_distance(found: Any, known: Any) -> float:
    seen = found.scores > 0
    if not seen.any():
        return float("inf")
    points = found.points[seen]
    away = np.linalg.norm(points - known.estimate[seen], axis=1).mean()
    return float(away / max(np.ptp(points, axis=0).max(), 1.0))


if __name__ == "__main__":
    main()
