"""Heatmaps → peaks: local maxima in the maps as they are, refined below one cell.

The reference algorithm upsamples every map to source size (bicubic) and smooths it (Gaussian) before it looks for
maxima. The same values are computed here, but only around the cells that are maxima already. Where the peak lies is
then said by the centroid of what is around it, which the noise of single cells moves less than their maximum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Tuple

import numpy as np

from worker.pose.compiled import compiled

#: Least confidence of a peak that people are made of.
THRESHOLD = 0.1
#: Least confidence of a peak that may complete a person.
WEAK_THRESHOLD = 0.03
#: Most peaks of one keypoint; beyond it the least confident are dropped, so that no map costs unbounded time.
MAX_PEAKS = 128
#: Width of the smoothing, in cells: the reference's 3 source pixels where a cell is 9 of them.
_SIGMA = 0.33
#: Cells on each side of a maximum that its refinement looks at.
_REACH = 2
#: Width of the Gaussian window of a peak's centroid, in cells: about the width of a joint in the maps.
_WINDOW = 0.85
#: What a cell is beside its neighbours: lower than one, as high as one before it, or a maximum.
_LOWER, _LEVEL, _MAXIMUM = 0, 1, 2
#: Positions on each axis at which a maximum is evaluated, between -0.5 and 0.5 cells.
_STEPS = 9


@lru_cache(maxsize=1)
def interpolation() -> Tuple[np.ndarray, np.ndarray]:
    """The offsets float32 (steps,) and, for each, the weights float32 (steps, 5) of the five cells around.

    A weight is OpenCV's bicubic kernel (a = -0.75) smoothed by a Gaussian.
    """
    offsets = np.linspace(-0.5, 0.5, _STEPS)
    cells = np.arange(-_REACH, _REACH + 1)
    blur = np.linspace(-3, 3, 61) * _SIGMA
    gauss = np.exp(-0.5 * (blur / _SIGMA) ** 2)
    distance = np.abs(offsets[:, None, None] + blur[None, None, :] - cells[None, :, None])
    near = (1.25 * distance - 2.25) * distance**2 + 1
    far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
    kernel = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    weights = (kernel * gauss).sum(-1)
    return offsets.astype(np.float32), (weights / weights.sum(1, keepdims=True)).astype(np.float32)


@compiled
def find_peaks(
    heatmaps: Any, rows: int, columns: int, threshold: float, most: int, offsets: Any, weights: Any
) -> Any:  # pragma: no cover - compiled
    """Peaks of each map.

    Args:
        heatmaps: float32 (parts, h, w).
        rows, columns: the part of each map that shows the image, in cells; the rest is padding.
        threshold: least value.
        most: most peaks of one map; the least confident beyond it are dropped.
        offsets, weights: see :func:`interpolation`.

    Returns:
        float32 (parts, most, 3): x and y in cells, value, those of a part by value, then from top to bottom, then
        from left to right; int32 (parts,): how many; how many of at least THRESHOLD were dropped; and over how many
        cells the flattest map is level, which are one peak if they touch and would each be one if they did not.
    """
    parts = heatmaps.shape[0]
    peaks = np.empty((parts, most, 3), np.float32)
    counts = np.zeros(parts, np.int32)
    dropped = flattest = 0
    for part in range(parts):
        heat = heatmaps[part]
        level = 0
        for y in range(rows):
            for x in range(columns):
                if not heat[y, x] > 0.8 * threshold:
                    continue
                kind = _kind(heat, y, x, rows, columns)
                level += int(kind == _LEVEL)
                if kind == _MAXIMUM:
                    fx, fy, refined = _refine(heat, y, x, rows, columns, offsets, weights)
                    if refined > threshold:
                        dropped += _keep(peaks, counts, part, fx, fy, refined)
        flattest = max(flattest, level)
    return peaks, counts, dropped, flattest


@compiled
def _kind(heat: Any, y: int, x: int, rows: int, columns: int) -> int:  # pragma: no cover - compiled
    """Whether a cell is a maximum, or would be if none of its neighbours before it were equal: one of equals wins."""
    value = heat[y, x]
    kind = _MAXIMUM
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            ny, nx = y + dy, x + dx
            if ny < 0 or nx < 0 or ny >= rows or nx >= columns or (dy == 0 and dx == 0):
                continue
            if heat[ny, nx] > value:
                return _LOWER
            before = dy < 0 or (dy == 0 and dx < 0)
            if before and heat[ny, nx] == value:
                kind = _LEVEL
    return kind


@compiled
def _refine(
    heat: Any, y: int, x: int, rows: int, columns: int, offsets: Any, weights: Any
) -> Any:  # pragma: no cover - compiled
    """The centroid around the position within half a cell where the smooth surface is greatest, and its value there."""
    steps, taps = weights.shape
    reach = taps // 2
    lines = np.empty((taps, steps), np.float32)
    for i in range(taps):
        row = min(max(y + i - reach, 0), rows - 1)
        for s in range(steps):
            total = np.float32(0.0)
            for j in range(taps):
                column = min(max(x + j - reach, 0), columns - 1)
                total += weights[s, j] * heat[row, column]
            lines[i, s] = total
    best, at_y, at_x = np.float32(-1.0), 0, 0
    for t in range(steps):
        for s in range(steps):
            total = np.float32(0.0)
            for i in range(taps):
                total += weights[t, i] * lines[i, s]
            if total > best:
                best, at_y, at_x = total, t, s
    fx, fy = _centroid(heat, y, x, rows, columns, x + offsets[at_x], y + offsets[at_y])
    return fx, fy, best


@compiled
def _centroid(
    heat: Any, y: int, x: int, rows: int, columns: int, at_x: float, at_y: float
) -> Any:  # pragma: no cover - compiled
    """The centroid of the cells around (x, y), weighted by a Gaussian about (at_x, at_y)."""
    total = sum_x = sum_y = 0.0
    for row in range(max(y - _REACH, 0), min(y + _REACH + 1, rows)):
        share = np.exp((row - at_y) ** 2 * (-0.5 / _WINDOW**2))
        for column in range(max(x - _REACH, 0), min(x + _REACH + 1, columns)):
            if heat[row, column] > 0:
                weight = heat[row, column] * share * np.exp((column - at_x) ** 2 * (-0.5 / _WINDOW**2))
                total += weight
                sum_x += weight * column
                sum_y += weight * row
    if not total > 0:
        return at_x, at_y
    return sum_x / total, sum_y / total


@compiled
def _keep(peaks: Any, counts: Any, part: int, x: float, y: float, value: float) -> int:  # pragma: no cover - compiled
    """Add a peak at its place; when the table is full, the last one gives way. Returns 1 if that costs one of
    THRESHOLD."""
    most = peaks.shape[1]
    row = counts[part]
    lost = 0
    if row == most:
        row -= 1
        lost = int(min(value, peaks[part, row, 2]) > THRESHOLD)
        if peaks[part, row, 2] >= value:
            return lost
    else:
        counts[part] += 1
    peaks[part, row, 0], peaks[part, row, 1], peaks[part, row, 2] = x, y, value
    while row > 0 and _comes_first(peaks, part, row, row - 1):
        for i in range(3):
            peaks[part, row, i], peaks[part, row - 1, i] = peaks[part, row - 1, i], peaks[part, row, i]
        row -= 1
    return lost


@compiled
def _comes_first(peaks: Any, part: int, one: int, other: int) -> bool:  # pragma: no cover - compiled
    """Whether a peak comes before another: by value, then from top to bottom, then from left to right."""
    if peaks[part, one, 2] != peaks[part, other, 2]:
        return peaks[part, one, 2] > peaks[part, other, 2]
    if peaks[part, one, 1] != peaks[part, other, 1]:
        return peaks[part, one, 1] < peaks[part, other, 1]
    return peaks[part, one, 0] < peaks[part, other, 0]
