"""What the tests of this room share: drawn crowds, and nets that need no weights."""

from __future__ import annotations

from typing import Callable, List, Tuple

import numpy as np
import pytest

from tests.support.synthetic import draw_maps, person
from worker.pose.geometry import Geometry

#: Frames uint8 (N, H, W, 3) → heatmaps, PAFs.
FakeNet = Callable[[np.ndarray], Tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def geometry() -> Geometry:
    """A source image of 640×480 looked at as it is: one cell is 8 source pixels."""
    return Geometry(source_height=480, source_width=640, scale=1.0, stride=8)


@pytest.fixture
def three_people() -> List[np.ndarray]:
    """Joints in cells of three people in maps of 60×80."""
    return [
        person(15.2, 4.1, 40, (0.3, -0.2, 0.1, -0.1)),
        person(40.6, 8.3, 30, (-0.4, 0.5, 0.0, 0.2)),
        person(65.7, 20.9, 22, (0.1, 0.2, -0.2, 0.3)),
    ]


@pytest.fixture
def white_box_net() -> FakeNet:
    """A net that sees one person standing in each frame's white box, and is as sure as the box is bright."""

    def net(frames: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        heatmaps, pafs = [], []
        for frame in frames:
            height, width = frame.shape[0] // 8, frame.shape[1] // 8
            brightest = float(frame.max())
            rows, columns = np.nonzero(frame.max(-1) > max(brightest / 2, 1.0))
            people = []
            if len(rows):
                # Pixel centres of the frame → cells; the box's edges are half a pixel beyond its outermost centres.
                top, bottom = (rows.min() - 0.5 + 0.5) / 8 - 0.5, (rows.max() + 0.5 + 0.5) / 8 - 0.5
                middle = ((columns.min() + columns.max()) / 2 + 0.5) / 8 - 0.5
                people.append(person(middle, top, bottom - top))
            heat, paf = draw_maps(people, height, width)
            heatmaps.append(heat * brightest / 255)
            pafs.append(paf)
        return np.stack(heatmaps), np.stack(pafs)

    return net
