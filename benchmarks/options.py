"""What each test-time option costs and gives: AP and milliseconds, as a table and a picture.

    python -m benchmarks.options [--annotations FILE] [--images DIR] [--write docs]

Runs the default net in this process, image by image, over labelled images (by default ../shared/data/coco-mini, which
may be absent). A set's milliseconds are those that one CPU core works on an image: preprocessing, net and decoding,
the median over the images.
--write puts accuracy.png, and the table into accuracy.md between its marks, into a folder.
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

from benchmarks.maps import COCO, ROOT
from worker.contract import PRESETS
from worker.engine import Net, load
from worker.evaluate_coco import LabelledImages
from worker.pose import EstimateOptions, Estimator
from worker.pose.formats import coco_results

#: What is measured; presets that are not among them are measured, too.
SETS: Tuple[Dict[str, Any], ...] = (
    {"target_height": 192},
    {"target_height": 240},
    {"target_height": 304},
    {"target_height": 368},
    {"target_height": 432},
    {"target_height": 496},
    {"target_height": 624},
    {"target_height": 736},
    {"max_width": 368},
    {"flip": True},
    {"target_height": 432, "flip": True},
    {"scales": (1.0, 0.5)},
    {"scales": (1.0, 1.5)},
    {"scales": (1.0, 1.5), "merge": "max"},
    {"scales": (1.0, 2.0)},
    {"scales": (0.5, 1.0, 1.5, 2.0)},
    {"scales": (0.5, 1.0, 1.5, 2.0), "flip": True},
)
_BEGIN, _END = "<!-- options: begin -->", "<!-- options: end -->"


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
        chosen = [f"{value:g}" if isinstance(value, float) else str(value) for value in self.options.get("scales", ())]
        words = [
            str(self.options.get("target_height", "" if chosen or "max_width" in self.options else 368)),
            " + ".join(chosen),
            "max" if self.options.get("merge") == "max" else "",
            f"width {self.options['max_width']}" if "max_width" in self.options else "",
            "flip" if self.options.get("flip") else "",
        ]
        return " ".join(word for word in words if word)


def _whole(options: Dict[str, Any]) -> EstimateOptions:
    """These options beside the defaults."""
    return EstimateOptions(**options)


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, default=COCO / "person_keypoints.json")
    parser.add_argument("--images", type=Path, default=COCO / "images")
    parser.add_argument("--write", type=Path, help="folder of accuracy.md and accuracy.png")
    arguments = parser.parse_args()
    if not arguments.annotations.exists():
        sys.exit(f"{arguments.annotations} is not there; give --annotations and --images of labelled COCO images")
    labelled = LabelledImages(arguments.annotations, arguments.images)
    images = {number: cv2.imread(str(path)) for number, path in labelled.paths.items()}
    net = load(ROOT / "models" / "mobilenet_thin", threads=1)
    cv2.setNumThreads(1)
    sets = [*SETS, *(preset for preset in PRESETS.values() if _whole(preset) not in map(_whole, SETS))]
    rows = _measured(sets, net, images, labelled)
    for row in rows:
        print(_line(row))
    if arguments.write:
        _write(arguments.write, rows)


def _measured(
    sets: Sequence[Dict[str, Any]], net: Net, images: Dict[int, np.ndarray], labelled: LabelledImages
) -> List[Row]:
    stated = net.manifest.input
    estimator = Estimator(net, stride=stated.stride, pad_value=stated.pad_value, offset=net.manifest.heatmaps.offset)
    estimator.warm()
    results: List[List[Any]] = [[] for _ in sets]
    spent: List[List[float]] = [[] for _ in sets]
    for number, image in tqdm(images.items(), unit=" images", disable=None):
        for place, options in enumerate(sets):  # of one image together: what slows the machine slows all alike
            start = time.process_time()
            (estimate,) = estimator.estimate([image], EstimateOptions(**options, min_score=0.0))
            spent[place].append((time.process_time() - start) * 1000)
            results[place] += coco_results(estimate.people, number)
    return [
        Row(options, statistics.median(spent[place]), labelled.score(results[place]))
        for place, options in enumerate(sets)
    ]


def _line(row: Row) -> str:
    figures = " | ".join("–" if value is None else f"{value:.3f}" for value in row.figures.values())
    chosen = ", ".join(f"`{name}` {_told(value)}".strip() for name, value in row.options.items())
    preset = f" (**{row.preset}**)" if row.preset else ""
    return f"| {chosen}{preset} | {row.milliseconds:.0f} | {figures} |"


def _told(value: Any) -> str:
    if value is True:
        return ""
    return " ".join(f"{scale:g}" for scale in value) if isinstance(value, tuple) else str(value)


def _write(folder: Path, rows: List[Row]) -> None:
    ordered = sorted(rows, key=lambda row: row.milliseconds)
    head = ["| options | ms | " + " | ".join(ordered[0].figures) + " |", "|---|" + "---:|" * (1 + len(rows[0].figures))]
    document = folder / "accuracy.md"
    before, rest = document.read_text(encoding="utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    table = "\n".join([*head, *map(_line, ordered)])
    document.write_text(f"{before}{_BEGIN}\n{table}\n{_END}{after}", encoding="utf-8")
    cv2.imwrite(str(folder / "accuracy.png"), _plot(ordered))


def _plot(rows: List[Row]) -> np.ndarray:
    """AP against milliseconds (logarithmic): every set a dot, presets large, the frontier a line."""
    width, height, left, bottom = 900, 520, 80, 60
    picture = np.full((height, width, 3), 255, np.uint8)
    times = np.log([row.milliseconds for row in rows])
    scores = np.array([row.figures["AP"] for row in rows])
    low, high = np.floor(scores.min() * 50) / 50, np.ceil(scores.max() * 50) / 50
    span = times.max() - times.min()

    def place(milliseconds: float, score: float) -> Any:
        across = (np.log(milliseconds) - times.min() + 0.05 * span) / (1.25 * span)
        up = (score - low) / (high - low)
        return int(left + across * (width - left - 20)), int(height - bottom - up * (height - bottom - 20))

    def text(words: str, at: Any, scale: float = 0.5) -> None:
        cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (60, 60, 60), 1, cv2.LINE_AA)

    for score in np.arange(low, high + 1e-6, 0.02):
        y = place(rows[0].milliseconds, score)[1]
        cv2.line(picture, (left, y), (width - 20, y), (225, 225, 225), 1)
        text(f"{score:.2f}", (left - 48, y + 5))
    for milliseconds in (20, 50, 100, 200, 500, 1000, 2000, 5000):
        if times.min() - 0.05 * span <= np.log(milliseconds) <= times.max() + 0.2 * span:
            x = place(milliseconds, low)[0]
            cv2.line(picture, (x, 20), (x, height - bottom), (225, 225, 225), 1)
            text(str(milliseconds), (x - 12, height - bottom + 22))
    text("AP", (10, 30), 0.6)
    text("milliseconds of one core", (width // 2 - 60, height - 12), 0.6)
    frontier = [row for i, row in enumerate(rows) if scores[i] > max([*scores[:i], -1.0])]
    corners = np.array([place(row.milliseconds, row.figures["AP"]) for row in frontier])
    cv2.polylines(picture, [corners], False, (200, 160, 90), 2, cv2.LINE_AA)
    for row in rows:
        at = place(row.milliseconds, row.figures["AP"])
        color = (40, 80, 220) if row.preset else (150, 110, 50)
        cv2.circle(picture, at, 9 if row.preset else 4, color, -1, cv2.LINE_AA)
        text(f"{row.preset}: {row.short}" if row.preset else row.short, (at[0] + 11, at[1] + 16), 0.42)
    return picture


if __name__ == "__main__":
    main()
