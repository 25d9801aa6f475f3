"""A picture of AP against milliseconds: what is worth its time is joined by a line."""

from __future__ import annotations

from typing import List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

_WIDTH, _HEIGHT = 960, 560
#: Free space around the plot, in pixels.
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 30, 50, 70
_TEXT, _GRID, _LINE, _DOT, _PRESET = (60, 60, 60), (225, 225, 225), (200, 160, 90), (150, 110, 50), (40, 80, 220)
_FONT = cv2.FONT_HERSHEY_SIMPLEX

#: Left, top, right, bottom in pixels.
Box = Tuple[float, float, float, float]


class Point(NamedTuple):
    """One set of options: milliseconds, AP, what it is called, and whether it is a preset."""

    milliseconds: float
    score: float
    label: str
    preset: bool


def frontier(points: Sequence[Point]) -> List[Point]:
    """Those than which nothing that takes less time is as accurate, by time."""
    best: List[Point] = []
    for point in sorted(points, key=lambda point: (point.milliseconds, -point.score)):
        if not best or point.score > best[-1].score:
            best.append(point)
    return best


def draw(points: Sequence[Point]) -> np.ndarray:
    """uint8 (H, W, 3), BGR; milliseconds on a logarithmic axis."""
    axes = _Axes(points)
    picture = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    _draw_grid(picture, axes)
    worth = frontier(points)
    corners = np.array([axes.at(point.milliseconds, point.score) for point in worth])
    cv2.polylines(picture, [corners], False, _LINE, 2, cv2.LINE_AA)
    places = [axes.at(point.milliseconds, point.score) for point in points]
    for point, place in zip(points, places):
        cv2.circle(picture, place, 9 if point.preset else 4, _PRESET if point.preset else _DOT, -1, cv2.LINE_AA)
    taken: List[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for point in sorted(worth + [p for p in points if p.preset and p not in worth], key=lambda point: -point.preset):
        _label(picture, point, axes.at(point.milliseconds, point.score), places, taken)
    return picture


class _Axes:
    def __init__(self, points: Sequence[Point]) -> None:
        times = np.log([point.milliseconds for point in points])
        self._first, self._last = times.min() - 0.08, times.max() + 0.25
        scores = [point.score for point in points]
        self.low, self.high = np.floor(min(scores) * 50) / 50, np.ceil(max(scores) * 50) / 50 + 0.02

    def at(self, milliseconds: float, score: float) -> Tuple[int, int]:
        across = (np.log(milliseconds) - self._first) / (self._last - self._first)
        up = (score - self.low) / (self.high - self.low)
        x = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
        return round(float(x)), round(float(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)))

    def holds(self, milliseconds: float) -> bool:
        return bool(self._first <= np.log(milliseconds) <= self._last)


def _draw_grid(picture: np.ndarray, axes: _Axes) -> None:
    for score in np.arange(axes.low, axes.high + 1e-6, 0.02):
        y = axes.at(1.0, score)[1]
        cv2.line(picture, (_LEFT, y), (_WIDTH - _RIGHT, y), _GRID, 1)
        _write(picture, f"{score:.2f}", (_LEFT - 48, y + 5), 0.5)
    for milliseconds in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000):
        if axes.holds(milliseconds):
            x = axes.at(milliseconds, axes.low)[0]
            cv2.line(picture, (x, _TOP), (x, _HEIGHT - _BOTTOM), _GRID, 1)
            _write(picture, str(milliseconds), (x - 5 * len(str(milliseconds)), _HEIGHT - _BOTTOM + 24), 0.5)
    _write(picture, "AP", (_LEFT - 48, _TOP - 24), 0.6)
    _write(picture, "milliseconds of one core for an image", (_WIDTH // 2 - 150, _HEIGHT - 16), 0.6)


def _label(
    picture: np.ndarray, point: Point, place: Tuple[int, int], places: List[Tuple[int, int]], taken: List[Box]
) -> None:
    """Write beside a point, where nothing stands yet and no other point is nearer."""
    scale = 0.5 if point.preset else 0.42
    (width, height), _ = cv2.getTextSize(point.label, _FONT, scale, 1)
    x, y = place
    corners = [(x + 12, y + 8 + height), (x - 12 - width, y - 10), (x - 12 - width, y + 8 + height), (x + 12, y - 10)]
    corners += [(x - width // 2, y + 12 + height), (x - width // 2, y - 14), (x + 12, y + 24 + height)]
    boxes = [(left - 2.0, bottom - height - 2.0, left + width + 2.0, bottom + 2.0) for left, bottom in corners]
    others = [other for other in places if other != place]
    costs = [
        sum(_common(box, other) for other in taken)
        + _outside(box)
        + 100.0 * sum(_distance(box, other) <= _distance(box, place) + 4 for other in others)
        for box in boxes
    ]
    best = int(np.argmin(costs))
    taken.append(boxes[best])
    _write(picture, point.label, corners[best], scale)


def _common(one: Box, other: Box) -> float:
    """How many pixels two boxes have in common."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _distance(box: Box, place: Tuple[int, int]) -> float:
    across = max(box[0] - place[0], place[0] - box[2], 0.0)
    return float(np.hypot(across, max(box[1] - place[1], place[1] - box[3], 0.0)))


def _outside(box: Box) -> float:
    inside = box[0] > _LEFT and box[1] > _TOP and box[2] < _WIDTH and box[3] < _HEIGHT - _BOTTOM
    return 0.0 if inside else 1e6


def _write(picture: np.ndarray, words: str, at: Tuple[int, int], scale: float) -> None:
    cv2.putText(picture, words, at, _FONT, scale, _TEXT, 1, cv2.LINE_AA)
