"""What each test-time option costs and gives: AP and milliseconds, as a table and a picture.

    python -m benchmarks.options [--annotations FILE] [--images DIR] [--write docs]

Runs the default net in this process, image by image, over labelled images (by default ../shared/data/coco-mini, which
may be absent). A set's milliseconds are the median over the images of preprocessing, net and decoding together.
--write puts accuracy.png, and the table into accuracy.md between its marks, into a folder.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import cv2
import numpy as np

from benchmarks.maps import COCO, ROOT
from worker.contract import PRESETS
from worker.engine import Net, load
from worker.evaluate_coco import LabelledImages
from worker.pose import EstimateOptions, Estimator
from worker.pose.formats import coco_results

#: What is measured beside the presets.
SETS: Dict[str, Dict[str, Any]] = {
    "`target_height` 192": {"target_height": 192},
    "`target_height` 240": {"target_height": 240},
    "`target_height` 304": {"target_height": 304},
    "nothing (`target_height` 368)": {},
    "`target_height` 432": {"target_height": 432},
    "`target_height` 496": {"target_height": 496},
    "`max_width` 368": {"max_width": 368},
    "`flip`": {"flip": True},
    "`target_height` 432, `flip`": {"target_height": 432, "flip": True},
    "`scales` 1, 0.5": {"scales": (1.0, 0.5)},
    "`scales` 1, 1.5": {"scales": (1.0, 1.5)},
    "`scales` 1, 1.5, `merge` max": {"scales": (1.0, 1.5), "merge": "max"},
    "`scales` 0.5, 1, 1.5, 2": {"scales": (0.5, 1.0, 1.5, 2.0)},
    "`scales` 1, 1.5, 2": {"scales": (1.0, 1.5, 2.0)},
    "`scales` 1, 1.5, `flip`": {"scales": (1.0, 1.5), "flip": True},
    "`scales` 0.5, 1, 1.5, 2, `flip`": {"scales": (0.5, 1.0, 1.5, 2.0), "flip": True},
}
_BEGIN, _END = "<!-- options: begin -->", "<!-- options: end -->"


class Row(NamedTuple):
    """One set of options, measured."""

    title: str
    milliseconds: float
    figures: Dict[str, Any]
    preset: bool


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
    net = load(ROOT / "models" / "mobilenet_thin")
    rows = []
    for title, options in {**SETS, **{f"**{name}**": preset for name, preset in PRESETS.items()}}.items():
        rows.append(_measured(title, options, net, images, labelled))
        print(_line(rows[-1]), flush=True)
    if arguments.write:
        _write(arguments.write, rows)


def _measured(title: str, options: Dict[str, Any], net: Net, images: Dict[int, np.ndarray], labelled: Any) -> Row:
    stated = net.manifest.input
    estimator = Estimator(net, stride=stated.stride, pad_value=stated.pad_value, offset=net.manifest.heatmaps.offset)
    wanted = EstimateOptions(**options, min_score=0.0)
    results, spent = [], []
    for number, image in images.items():
        (estimate,) = estimator.estimate([image], wanted)
        results += coco_results(estimate.people, number)
        spent.append(sum(estimate.timings_ms.values()))
    return Row(title, statistics.median(spent), labelled.score(results), title.startswith("**"))


def _line(row: Row) -> str:
    figures = " | ".join("–" if value is None else f"{value:.3f}" for value in row.figures.values())
    return f"| {row.title} | {row.milliseconds:.0f} | {figures} |"


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
    """AP against milliseconds (logarithmic): every set a dot, presets large and named, the frontier a line."""
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
    text("milliseconds an image", (width // 2 - 60, height - 12), 0.6)
    frontier = [row for i, row in enumerate(rows) if scores[i] > max([*scores[:i], -1.0])]
    corners = np.array([place(row.milliseconds, row.figures["AP"]) for row in frontier])
    cv2.polylines(picture, [corners], False, (200, 160, 90), 2, cv2.LINE_AA)
    for row in rows:
        at = place(row.milliseconds, row.figures["AP"])
        cv2.circle(
            picture, at, 9 if row.preset else 4, (40, 80, 220) if row.preset else (150, 110, 50), -1, cv2.LINE_AA
        )
        if row.preset:
            text(row.title.strip("*"), (at[0] + 13, at[1] + 18), 0.6)
    return picture


if __name__ == "__main__":
    main()
