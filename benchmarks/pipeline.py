"""Where a job's time goes, from file to result: each stage alone, then the whole job through the queue.

    make bench          (or: python -m benchmarks.pipeline [--image FILE] [--rounds 20])

Prints the median of the rounds, in milliseconds, for one JPEG of 640×480 at height 368, and the ratio of the whole
job through the queue to the sum of its stages.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Dict, List

import cv2

from worker.cli.local import local_fleet
from worker.client import PoseClient
from worker.contract import Result

STAGES = ("decode", "preprocess", "net", "associate", "overlay", "store")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=Path("samples/zidane.jpg"), help="cropped and scaled to 640x480")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "640x480.jpg"
        cv2.imwrite(str(image), _cropped(cv2.imread(str(arguments.image))))
        results, whole = _measure(image, arguments.rounds)
    _report(results, whole)


def _cropped(picture: cv2.typing.MatLike) -> cv2.typing.MatLike:
    """The middle of `picture` in the shape 4:3, scaled to 640×480."""
    height, width = picture.shape[:2]
    kept = min(width, height * 4 // 3)
    left = (width - kept) // 2
    return cv2.resize(picture[:, left : left + kept], (640, 480), interpolation=cv2.INTER_AREA)


def _measure(image: Path, rounds: int) -> tuple[List[Result], List[float]]:
    results, whole = [], []
    environment = {**os.environ, "POSE_IMAGE_ROOTS": str(image.parent), "POSE_WARM_SIZES": "368x496"}
    with local_fleet(environment) as (broker_url, _), PoseClient(broker_url) as client:
        client.submit(image).result(300)  # the worker is up
        for _ in range(rounds):
            start = time.perf_counter()
            results.append(client.submit(image).result(60))
            whole.append((time.perf_counter() - start) * 1000)
    return results, whole


def _report(results: List[Result], whole: List[float]) -> None:
    medians: Dict[str, float] = {
        stage: statistics.median(result.timings_ms[stage] for result in results) for stage in STAGES
    }
    first = results[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {first.device}, {first.model.name}; median of {len(whole)}")
    print(f"{'stage':<28}{'ms':>9}{'share':>8}")
    total = statistics.median(whole)
    for stage, spent in medians.items():
        print(f"{'peaks + association' if stage == 'associate' else stage:<28}{spent:>9.2f}{spent / total:>8.1%}")
    print(f"{'whole job through the queue':<28}{total:>9.2f}")
    print(f"ratio of the whole job to the sum of its stages: {total / sum(medians.values()):.3f}")


if __name__ == "__main__":
    main()
