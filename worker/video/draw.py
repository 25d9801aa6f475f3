"""A film's frame with its people: who they are, and the way that each has come."""

from __future__ import annotations

from collections import deque
from typing import Any, Deque, Dict, Iterable, Mapping, Optional, Sequence, Tuple

import cv2
import numpy as np

from worker.pose.overlay import PEOPLE_COLORS, Color, draw_overlay
from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.video.lines import FrameFound

#: Seconds of a person's way that are drawn.
TRAIL_S = 1.0
#: Height of a number, and thickness of a trail, as shares of the picture's mean side.
_NUMBER, _TRAIL = 1 / 32, 1 / 200
#: Height of a digit of OpenCV's font at scale 1, in pixels.
_FONT_HEIGHT = 22.0


class Drawer:
    """Draws the frames of a segment, in order.

    Args:
        skeleton: of the people.
        style: as of :func:`worker.pose.overlay.draw_overlay`; but by keypoints, each id has a colour of its own,
            which it keeps.
    """

    def __init__(self, skeleton: Skeleton, style: Mapping[str, Any]) -> None:
        self._skeleton, self._style = skeleton, dict(style)
        named = isinstance(self._style["colors"], str)
        self._palette: Sequence[Color] = PEOPLE_COLORS if named else self._style["colors"]
        #: By id: when and where people were, of the last second.
        self._ways: Dict[int, Deque[Tuple[float, Tuple[int, int]]]] = {}

    def see(self, frames: Iterable[FrameFound]) -> None:
        """Take note of frames that are not drawn, but lie shortly before those that are."""
        for found in frames:
            self._follow(found)

    def draw(self, pixels: np.ndarray, found: Optional[FrameFound]) -> np.ndarray:
        """A new picture of a frame, uint8 (H, W, 3) BGR, with the people `found` in it."""
        style, people = self._style, found.people if found else People.nobody(len(self._skeleton.keypoints))
        ids = [] if found is None or found.ids is None else found.ids.tolist()
        if ids and style["colors"] != "keypoints":  # by id, for people change places from frame to frame
            style = {**style, "colors": [self._color(one) for one in ids]}
        picture = draw_overlay(pixels, people, skeleton=self._skeleton, **style)
        if found is not None and ids:
            self._follow(found)
            side = sum(picture.shape[:2]) / 2
            self._draw_ways(picture, ids, found.time_s, max(1, round(side * _TRAIL)))
            for one, joints in zip(ids, people.keypoints):
                _draw_number(picture, one, joints, side * _NUMBER)
        return picture

    def _follow(self, found: FrameFound) -> None:
        for one, joints in zip([] if found.ids is None else found.ids.tolist(), found.people.keypoints):
            seen = joints[joints[:, 2] > 0, :2]
            if len(seen):
                x, y = np.median(seen, axis=0)
                self._ways.setdefault(one, deque()).append((found.time_s, (round(float(x)), round(float(y)))))
        for one, way in list(self._ways.items()):
            while way and way[0][0] < found.time_s - TRAIL_S:
                way.popleft()
            if not way:
                del self._ways[one]

    def _draw_ways(self, picture: np.ndarray, ids: Sequence[int], time_s: float, line: int) -> None:
        """Lay the ways over the picture, the older the fainter."""
        drawn, mask = np.zeros_like(picture), np.zeros(picture.shape[:2], np.uint8)
        for one in ids:
            way, color = list(self._ways.get(one, ())), self._color(one)
            for (_, start), (at, end) in zip(way, way[1:]):
                strength = 1 - (time_s - at) / TRAIL_S
                faint = tuple(int(part * strength) for part in color)
                cv2.line(drawn, start, end, faint, line, cv2.LINE_AA)
                cv2.line(mask, start, end, int(255 * strength), line, cv2.LINE_AA)
        x, y, wide, high = cv2.boundingRect(mask)
        if wide:
            at_ways = slice(y, y + high), slice(x, x + wide)
            rest = cv2.merge([cv2.bitwise_not(mask[at_ways])] * 3)
            picture[at_ways] = cv2.add(cv2.multiply(picture[at_ways], rest, scale=1 / 255), drawn[at_ways])

    def _color(self, one: int) -> Color:
        return self._palette[one % len(self._palette)]


def _draw_number(picture: np.ndarray, one: int, joints: np.ndarray, height: float) -> None:
    """The person's id above the topmost joint."""
    seen = joints[joints[:, 2] > 0, :2]
    if not len(seen):
        return
    x, y = seen[np.argmin(seen[:, 1])]
    scale, thick = height / _FONT_HEIGHT, max(1, round(height / 10))
    at = (round(float(x) - height / 3 * len(str(one))), max(round(height) + 1, round(float(y) - height / 2)))
    cv2.putText(picture, str(one), at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3 * thick, cv2.LINE_AA)
    cv2.putText(picture, str(one), at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick, cv2.LINE_AA)
