"""The default net's maps of real photographs, and drawn maps of crowds: what the decoder's benchmarks read."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, List, NamedTuple, Tuple

import cv2
import numpy as np

from tests.support.synthetic import draw_maps, person
from worker.engine import load
from worker.pose.geometry import Geometry, plan
from worker.pose.preprocess import to_input

ROOT = Path(__file__).resolve().parent.parent
#: Labelled photographs, where there are any; else the samples.
COCO = ROOT.parent / "shared" / "data" / "coco-mini"
HEIGHT = 368


class Maps(NamedTuple):
    """One image's maps and how it came into the net."""

    name: str
    heatmaps: np.ndarray
    pafs: np.ndarray
    geometry: Geometry


def photographs() -> List[Path]:
    """The photographs to measure with."""
    folder = COCO / "images" if COCO.is_dir() else ROOT / "samples"
    return sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def net_maps(paths: List[Path], model: Path = ROOT / "models" / "mobilenet_thin") -> Iterator[Maps]:
    """Maps of each image at height HEIGHT."""
    net = load(model)
    for path in paths:
        image = cv2.imread(str(path))
        at = plan(*image.shape[:2], target_height=HEIGHT, stride=8, offset=net.manifest.heatmaps.offset)
        heatmaps, pafs = net(to_input(image, at, net.manifest.input.pad_value)[None])
        yield Maps(path.name, np.array(heatmaps[0]), np.array(pafs[0]), at)
    net.close()


def crowd_maps(people: int) -> Maps:
    """Maps of `people` people who stand in rows of up to 20, all in one picture of the size that 100 need."""
    rng = np.random.default_rng(people)
    standing = [
        person(
            5 + 8 * (i % 20) + rng.uniform(-1, 1), 1 + 16 * (i // 20), rng.uniform(11, 14), rng.uniform(-0.5, 0.5, 8)
        )
        for i in rng.permutation(100)[:people]
    ]
    height, width = 82, 164
    maps: Tuple[np.ndarray, np.ndarray] = draw_maps(standing, height, width)
    return Maps(f"{people} people", *maps, Geometry(8 * height, 8 * width, 1.0, 8))
