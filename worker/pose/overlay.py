"""People → a picture."""

from __future__ import annotations

from typing import Sequence, Tuple, Union

import cv2
import numpy as np

from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import COCO_18, PARTS

#: Blue, green, red.
Color = Tuple[int, int, int]

#: Fractional bits of the positions given to OpenCV, for smooth edges.
_SHIFT = 4
#: Line thickness as a share of the image's mean side.
_THICKNESS = 1 / 160
#: Pixels that are blended at a time: it takes some floating-point numbers for each, and these stay in the cache.
_BAND = 1 << 16
#: Distinguishes people: eight colours that differ in hue or lightness, the strongest contrasts first.
PEOPLE_COLORS: Tuple[Color, ...] = (
    (48, 48, 230),
    (230, 140, 20),
    (40, 200, 40),
    (20, 200, 245),
    (220, 60, 190),
    (210, 210, 60),
    (30, 110, 250),
    (150, 90, 90),
)


def draw_overlay(
    image: np.ndarray,
    people: People,
    *,
    background: str = "image",
    alpha: float = 0.6,
    thickness: float = 1.0,
    render_threshold: float = 0.05,
    colors: Union[str, Sequence[Color]] = "keypoints",
    skeleton: Skeleton = COCO_18,
) -> np.ndarray:
    """Draw each person's limbs and joints, and hands and face in finer lines.

    Args:
        image: uint8 (H, W, 3), BGR; it is not changed.
        background: ``image``, ``black`` or ``transparent``.
        alpha: opacity of what is drawn, 0..1.
        thickness: factor on the line thickness that fits the image's size.
        render_threshold: joints of lower confidence are not drawn.
        colors: ``keypoints``: by keypoint, as the skeleton has them; ``people``: one for each person; or those that
            people take in turn.

    Returns:
        uint8 (H, W, 3), BGR; for a transparent background uint8 (H, W, 4), BGRA.
    """
    height, width = image.shape[:2]
    line = max(1, round(thickness * _THICKNESS * (height + width) / 2))
    drawn = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for number, joints in enumerate(people.keypoints):
        _draw_person(drawn, mask, joints, line, render_threshold, skeleton, _colors(colors, number, skeleton))
        for part, found in people.parts.items():
            finer, of_part = max(1, line // 2), PARTS[part][1]
            _draw_person(drawn, mask, found[number], finer, render_threshold, of_part, _colors(colors, number, of_part))
    base = image if background == "image" else np.zeros_like(image)
    if len(people) == 0 and background != "transparent":
        return base.copy()
    picture = np.zeros((height, width, 4), np.uint8) if background == "transparent" else base.copy()
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        x, y, wide, high = cv2.boundingRect(mask[top : top + rows])  # the rest, most of a picture, is left as it is
        if wide == 0:
            continue
        at = slice(top + y, top + y + high), slice(x, x + wide)
        if background == "transparent":
            picture[at] = _cut_out(drawn[at], mask[at], alpha)
        else:
            picture[at] = _laid_over(base[at], drawn[at], mask[at], alpha)
    return picture


def _cut_out(drawn: np.ndarray, mask: np.ndarray, alpha: float) -> np.ndarray:
    """BGRA; colours are divided by their coverage: drawn on black, smooth edges would be dark."""
    coverage = np.maximum(mask, 1)[..., None].astype(np.float32) / 255
    solid = np.clip(drawn / coverage, 0, 255).astype(np.uint8)
    return np.dstack([solid, (mask * np.float32(alpha)).round().astype(np.uint8)])


def _laid_over(base: np.ndarray, drawn: np.ndarray, mask: np.ndarray, alpha: float) -> np.ndarray:
    """BGR; `drawn` is premultiplied by the mask: base * (1 - a·m) + drawn * a."""
    weight = cv2.merge([mask] * 3).astype(np.float32) * np.float32(-alpha / 255) + np.float32(1)
    return cv2.addWeighted(cv2.multiply(base, weight, dtype=cv2.CV_8U), 1.0, drawn, alpha, 0.0)


def _colors(colors: Union[str, Sequence[Color]], number: int, skeleton: Skeleton) -> Sequence[Color]:
    """The colour of each keypoint of the person of this number."""
    if colors == "keypoints":
        return skeleton.colors
    palette = PEOPLE_COLORS if isinstance(colors, str) else colors
    return [palette[number % len(palette)]] * len(skeleton.keypoints)


def _draw_person(
    drawn: np.ndarray,
    mask: np.ndarray,
    joints: np.ndarray,
    line: int,
    threshold: float,
    skeleton: Skeleton,
    colors: Sequence[Color],
) -> None:
    visible = joints[:, 2] > max(threshold, 0.0)
    positions = np.where(visible[:, None], joints[:, :2], 0)
    fixed = np.round(positions * (1 << _SHIFT)).astype(int)
    for start, end in skeleton.drawn:
        if not (visible[start] and visible[end]):
            continue
        ends = tuple(map(int, fixed[start])), tuple(map(int, fixed[end]))
        cv2.line(drawn, *ends, colors[end], line, cv2.LINE_AA, _SHIFT)
        cv2.line(mask, *ends, 255, line, cv2.LINE_AA, _SHIFT)
    radius = round(line * 1.1 * (1 << _SHIFT))
    for joint in np.flatnonzero(visible):
        center = tuple(map(int, fixed[joint]))
        cv2.circle(drawn, center, radius, colors[int(joint)], -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(mask, center, radius, 255, -1, cv2.LINE_AA, _SHIFT)
