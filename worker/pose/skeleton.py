"""COCO-18 as data: keypoints, limbs, their PAF channels, and the orders of other formats."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cached_property
from typing import Tuple

import numpy as np


@dataclass(frozen=True)
class Limb:
    """Two keypoints, and the first of the two PAF channels (x, then y) that point from `start` to `end`."""

    start: int
    end: int
    paf: int
    #: A limb that may join two parts of one person, but not begin a person by itself.
    joins_only: bool = False


@dataclass(frozen=True)
class Skeleton:
    """Names of the keypoints in channel order, limbs, colours (B, G, R)."""

    name: str
    keypoints: Tuple[str, ...]
    limbs: Tuple[Limb, ...]
    colors: Tuple[Tuple[int, int, int], ...]
    #: How far apart two people place each keypoint, as a share of the root of the person's area (cocodataset.org,
    #: keypoint evaluation); the neck, which COCO does not have, as a shoulder.
    sigmas: Tuple[float, ...]

    @cached_property
    def limb_table(self) -> np.ndarray:
        """int32 (limbs, 4): start, end, PAF channel, joins_only."""
        return np.array([(b.start, b.end, b.paf, b.joins_only) for b in self.limbs], np.int32)

    @cached_property
    def paf_channels(self) -> int:
        """How many PAF channels the limbs take."""
        return max(limb.paf for limb in self.limbs) + 2


def _hues(count: int) -> Tuple[Tuple[int, int, int], ...]:
    """`count` colours around the hue circle, red first, as OpenPose's COCO drawings have them; B, G, R."""
    hues = (colorsys.hsv_to_rgb(i / count, 1, 1) for i in range(count))
    return tuple((round(255 * blue), round(255 * green), round(255 * red)) for red, green, blue in hues)


#: The order of OpenPose's COCO model (Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity
#: Fields", CVPR 2017); heatmap 18 is the background.
COCO_18 = Skeleton(
    name="COCO-18",
    keypoints=(
        "nose",
        "neck",
        "right_shoulder",
        "right_elbow",
        "right_wrist",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "right_hip",
        "right_knee",
        "right_ankle",
        "left_hip",
        "left_knee",
        "left_ankle",
        "right_eye",
        "left_eye",
        "right_ear",
        "left_ear",
    ),
    limbs=(
        Limb(1, 2, 12),
        Limb(1, 5, 20),
        Limb(2, 3, 14),
        Limb(3, 4, 16),
        Limb(5, 6, 22),
        Limb(6, 7, 24),
        Limb(1, 8, 0),
        Limb(8, 9, 2),
        Limb(9, 10, 4),
        Limb(1, 11, 6),
        Limb(11, 12, 8),
        Limb(12, 13, 10),
        Limb(1, 0, 28),
        Limb(0, 14, 30),
        Limb(14, 16, 34),
        Limb(0, 15, 32),
        Limb(15, 17, 36),
        Limb(2, 16, 18, joins_only=True),
        Limb(5, 17, 26, joins_only=True),
    ),
    colors=_hues(18),
    sigmas=(
        *(0.026, 0.079, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062),
        *(0.107, 0.087, 0.089, 0.107, 0.087, 0.089, 0.025, 0.025, 0.035, 0.035),
    ),
)

#: COCO's 17 keypoints (nose, eyes, ears, shoulders, … left before right) as indices of COCO-18.
COCO_17_FROM_18 = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)

#: OpenPose's BODY_25 as indices of COCO-18; -1 where COCO-18 has no such keypoint: feet, and the mid-hip, which
#: worker.pose.formats places between the hips.
BODY_25_FROM_18 = (0, 1, 2, 3, 4, 5, 6, 7, -1, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, -1, -1, -1, -1, -1, -1)
BODY_25_MID_HIP = 8

#: Keypoints that change places when an image is mirrored, as indices of COCO-18.
MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
