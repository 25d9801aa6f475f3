"""What each test-time option costs and gives: AP and milliseconds, as a table and a picture.

    make bench-options      (or: python -m benchmarks.options [--annotations FILE] [--images DIR] [--write docs])

Runs the default net in this process, image by image, over labelled images (by default ../shared/data/coco-mini, which
may be absent). A set's milliseconds are those that one CPU core works on an image: preprocessing, net and decoding,
the median over the images. A pass of the net that several sets need is made once for each image, and its time counts
for all of them. --write puts accuracy.png, and the table into accuracy.md between its marks, into a folder.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks import charts
from benchmarks.document import figures, put
from benchmarks.maps import COCO, ROOT
from worker.cli.coco import LabelledImages
from worker.contract import PRESETS
from worker.engine import Maps, Net, load
from worker.pose.decoder import warm
from worker.pose.estimator import EstimateOptions, Estimator
from worker.pose.formats import coco_results

#: What is measured; presets that are not among them are measured, too.
SETS: Tuple[Dict[str, Any], ...] = (
    {"target_height": 192},
    {"target_height": 240},
    {"target_height": 304},
    {"target_height": 368},
    {"target_height": 496},
    {"target_height": 552},
    {"target_height": 736},
    {"max_width": 368},
    {"refine": "once"},
    {"refine": "twice"},
    {"target_height": 272, "refine": "twice"},
    {"target_height": 304, "refine": "once"},
    {"target_height": 304, "refine": "twice"},
    {"target_height": 256, "scales": (1.0, 1.5), "refine": "twice"},
    {"flip": True},
    {"scales": (1.0, 0.5)},
    {"scales": (1.0, 1.5)},
    {"scales": (1.0, 1.5), "flip": True},
    {"scales": (1.0, 2.0)},
    {"scales": (0.5, 1.0, 1.5, 2.0)},
    {"scales": (0.5, 1.0, 1.5, 2.0), "flip": True},
)


class Row(NamedTuple):
    """One set of options, measured."""

    options: Dict[str, Any]
    milliseconds: float
    figures: Dict[str, Any]

    @property
    def preset(self) -> str:
        """The preset's name, or nothing."""
        return next((name for name, options in PRESETS.items() if _whole(options) == _whole(self.options)), "")

    @property
    def short(self) -> str:
        """What is chosen, in few words."""
        scales = ", ".join(f"{scale:g}" for scale in self.options.get("scales", ()))
        words = [
            str(self.options.get("target_height", "")),
            f"scales {scales}" if scales else "",
            "max" if self.options.get("merge") == "max" else "",
            f"width {self.options['max_width']}" if "max_width" in self.options else "",
            "flip" if self.options.get("flip") else "",
            f"refine {self.options['refine']}" if "refine" in self.options else "",
        ]
        chosen = " ".join(word for word in words if word)
        return f"{self.preset}: {chosen}" if self.preset else chosen


class RememberingNet:
    """A net that is asked the same again and again: it answers at once, and says what the answer had cost.

    Attributes:
        owed_ms: milliseconds to add to those that a clock has seen, as the net would have taken longer.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._answers: Dict[Tuple[Any, bytes], Tuple[Maps, float]] = {}
        self.owed_ms = 0.0

    def __call__(self, frames: np.ndarray) -> Maps:
        """Maps of frames uint8 (N, H, W, 3), as the net's own; they may be changed."""
        start = time.process_time()
        key = (frames.shape, frames.tobytes())
        if key not in self._answers:
            began = time.process_time()
            self._answers[key] = self._net(frames), (time.process_time() - began) * 1000
        (heatmaps, pafs), spent = self._answers[key]
        answer = heatmaps.copy(), pafs.copy()
        self.owed_ms += spent - (time.process_time() - start) * 1000
        return answer

    def forget(self) -> None:
        """Another image follows."""
        self._answers.clear()


def _whole(options: Dict[str, Any]) -> EstimateOptions:
    """These options beside the defaults."""
    return EstimateOptions(**options)


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, default=COCO / "person_keypoints.json")
    parser.add_argument("--images", type=Path, default=COCO / "images")
    parser.add_argument("--limit", type=int, help="look at the first LIMIT images only")
    parser.add_argument("--write", type=Path, help="folder of accuracy.md and accuracy.png")
    arguments = parser.parse_args()
    if not arguments.annotations.exists():
        sys.exit(f"{arguments.annotations} is not there; give --annotations and --images of labelled COCO images")
    if arguments.write:
        charts.need_matplotlib()  # before minutes are spent
    labelled = LabelledImages(arguments.annotations, arguments.images, arguments.limit)
    net = load(ROOT / "models" / "mobilenet_thin", threads=1)
    cv2.setNumThreads(1)
    sets = [*SETS, *(preset for preset in PRESETS.values() if _whole(preset) not in map(_whole, SETS))]
    rows = sorted(_measured(sets, net, labelled), key=lambda row: row.milliseconds)
    lines = _table(rows)
    print("\n".join(lines))
    if arguments.write:
        put(arguments.write / "accuracy.md", "options", lines)
        points = [charts.Point(row.milliseconds, row.figures["AP"], row.short, bool(row.preset)) for row in rows]
        charts.accuracy(points, arguments.write / "accuracy.png")


def _measured(sets: Sequence[Dict[str, Any]], net: Net, labelled: LabelledImages) -> List[Row]:
    stated, remembering = net.manifest.input, RememberingNet(net)
    offset = net.manifest.heatmaps.offset
    estimator = Estimator(remembering, stride=stated.stride, pad_value=stated.pad_value, offset=offset)
    warm()
    results: List[List[Any]] = [[] for _ in sets]
    spent: List[List[float]] = [[] for _ in sets]
    for number, path in tqdm(labelled.paths.items(), unit=" images", disable=None):
        image = cv2.imread(str(path))
        for index, options in enumerate(sets):  # of one image together: what slows the machine slows all alike
            start, remembering.owed_ms = time.process_time(), 0.0
            (estimate,) = estimator.estimate([image], EstimateOptions(**options, min_score=0.0))
            spent[index].append((time.process_time() - start) * 1000 + remembering.owed_ms)
            results[index] += coco_results(estimate.people, number)
        remembering.forget()
    return [
        Row(options, statistics.median(spent[index]), labelled.score(results[index]))
        for index, options in enumerate(sets)
    ]


def _table(rows: Sequence[Row]) -> List[str]:
    names = list(rows[0].figures)
    return [
        "| options | ms | " + " | ".join(names) + " |",
        "|---|" + "---:|" * (1 + len(names)),
        *(f"| {_named(row)} | {row.milliseconds:.0f} | {figures(row.figures)} |" for row in rows),
    ]


def _named(row: Row) -> str:
    chosen = ", ".join(f"`{name}` {_value(value)}".strip() for name, value in row.options.items())
    return f"**{row.preset}**: {chosen}" if row.preset else chosen


def _value(value: Any) -> str:
    if value is True:
        return ""
    return " ".join(f"{scale:g}" for scale in value) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    main()
