"""People whose place is known, and the maps that a perfect net would give for them.

Heatmaps and part affinity fields are drawn as training targets are (Cao et al., CVPR 2017, sections 2.2 and 2.3): a
Gaussian at each joint, the greatest where several overlap; along each limb, as wide as two cells, the unit vector
from its start to its end, averaged where several overlap.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np

from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import COCO_18

#: Width of a joint's Gaussian and half a limb's width, in cells: 7 and 8 pixels at stride 8.
SIGMA, HALF_WIDTH = 7 / 8, 1.0

#: One standing person seen from the front, x from -1 to 1 about the middle, y from 0 to 4; COCO-18 order.
STANDING = np.array(
    [
        (0.0, 0.3),
        (0.0, 0.8),
        (-0.5, 0.8),
        (-0.7, 1.4),
        (-0.8, 2.0),
        (0.5, 0.8),
        (0.7, 1.4),
        (0.8, 2.0),
        (-0.3, 2.0),
        (-0.35, 2.9),
        (-0.35, 3.8),
        (0.3, 2.0),
        (0.35, 2.9),
        (0.35, 3.8),
        (-0.12, 0.18),
        (0.12, 0.18),
        (-0.27, 0.25),
        (0.27, 0.25),
    ]
)


def person(x: float, y: float, size: float, limp: Sequence[float] = ()) -> np.ndarray:
    """Joints float (18, 2) in cells of a person of height `size` whose upper end's middle is at (`x`, `y`).

    Args:
        limp: angles in radians by which the elbows, wrists, knees and ankles are turned about the joint above them.
    """
    joints = STANDING.copy()
    chains = ((2, (3, 4)), (5, (6, 7)), (8, (9, 10)), (11, (12, 13)), (3, (4,)), (6, (7,)), (9, (10,)), (12, (13,)))
    for angle, (pivot, turned) in zip(limp, chains):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        joints[list(turned)] = joints[pivot] + (joints[list(turned)] - joints[pivot]) @ turn
    return joints * (size / 4) + (x, y)


#: Where other skeletons have keypoints that COCO-18 has not.
_ELSEWHERE = {
    **{"mid_hip": (0.0, 2.0), "head": (0.0, 0.0), "chest": (0.0, 1.4)},
    **{"right_heel": (-0.4, 4.0), "right_big_toe": (-0.1, 4.1), "right_small_toe": (-0.7, 4.1)},
    **{"left_heel": (0.4, 4.0), "left_big_toe": (0.1, 4.1), "left_small_toe": (0.7, 4.1)},
    **{"middle": (0.0, 2.0), "left_point": (1.4, 1.6), "right_point": (-1.4, 1.6), "top": (0.2, 0.0)},
    **{"bottom": (0.1, 4.0)},
}


def person_of(skeleton: Skeleton, x: float, y: float, size: float) -> np.ndarray:
    """Joints float (K, 2) in cells, as :func:`person`, of another skeleton."""
    places = {**dict(zip(COCO_18.keypoints, STANDING)), **_ELSEWHERE}
    return np.array([places[name] for name in skeleton.keypoints]) * (size / 4) + (x, y)


def draw_maps(
    people: Sequence[np.ndarray], height: int, width: int, skeleton: Skeleton = COCO_18
) -> Tuple[np.ndarray, np.ndarray]:
    """Maps of `people`, each float (K, 2) in cells with NaN where a joint is not to be seen.

    Returns:
        float32 (K + 1, height, width) and float32 (2 L, height, width).
    """
    parts, fields = len(skeleton.keypoints), skeleton.paf_channels
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    heatmaps = np.zeros((parts + 1, height, width))
    for joints in people:
        for part, (x, y) in enumerate(joints):
            if not np.isnan(x):
                squared = (columns - x) ** 2 + (rows - y) ** 2
                heatmaps[part] = np.maximum(heatmaps[part], np.exp(-squared / (2 * SIGMA**2)))
    heatmaps[parts] = 1 - heatmaps[:parts].max(0)
    pafs, counts = np.zeros((fields, height, width)), np.zeros((fields, height, width))
    for joints in people:
        for start, end, channel, _ in skeleton.limb_table:
            _draw_limb(pafs, counts, joints[start], joints[end], channel, rows, columns)
    return heatmaps.astype(np.float32), (pafs / np.maximum(counts, 1)).astype(np.float32)


def _draw_limb(
    pafs: np.ndarray,
    counts: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    channel: int,
    rows: np.ndarray,
    columns: np.ndarray,
) -> None:
    length = np.linalg.norm(end - start)
    if not length > 0:  # NaN too
        return
    along = (end - start) / length
    at_x, at_y = columns - start[0], rows - start[1]
    forward, aside = at_x * along[0] + at_y * along[1], np.abs(at_x * along[1] - at_y * along[0])
    inside = (forward >= -HALF_WIDTH) & (forward <= length + HALF_WIDTH) & (aside <= HALF_WIDTH)
    for axis in range(2):
        pafs[channel + axis][inside] += along[axis]
        counts[channel + axis][inside] += 1


def mirrored(joints: np.ndarray, width: float) -> np.ndarray:
    """Joints (…, 18, 2 or 3) of the mirrored image: x in an image of `width`, left and right changed."""
    turned = joints[..., list(COCO_18.mirrored), :].copy()
    turned[..., 0] = width - 1 - turned[..., 0]
    return turned


def same_people(found: People, drawn: Sequence[np.ndarray], tolerance: float) -> List[str]:
    """What differs between the people `found` and those `drawn`, in any order; positions in the same unit.

    Returns:
        One line for each person too many or too few; nothing if they are the same.
    """
    left = list(found.keypoints)
    faults = []
    for number, joints in enumerate(drawn):
        seen = ~np.isnan(joints[:, 0])
        match = None
        for place, other in enumerate(left):
            if np.array_equal(other[:, 2] > 0, seen):
                distance = np.abs(other[seen, :2] - joints[seen])
                if distance.max() <= tolerance:
                    match = place
        if match is None:
            faults.append(f"person {number} was not found: {joints.round(1).tolist()}")
        else:
            del left[match]
    return faults + [f"nobody was drawn at {other.round(1).tolist()}" for other in left]
