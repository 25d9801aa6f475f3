"""What a part affinity field says along a line: only what is looked at is interpolated."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.pose.compiled import compiled

#: Samples along a limb, ends included.
SAMPLES = 10
#: Least value of the field, along the limb's direction, at a sample that counts.
FIELD_THRESHOLD = 0.05
#: A limb longer than this share of the image's height is penalised.
_LONGEST = 0.5
#: Limbs shorter than this have no direction, in cells.
_SHORTEST = 1e-3


@compiled
def along(
    pafs: Any, channel: int, start: Any, end: Any, least: int, map_height: float
) -> float:  # pragma: no cover - compiled
    """The field's mean along the line from `start` to `end`, less the penalty for its length.

    Args:
        pafs: float32 (channels, h, w).
        channel: that of the field's x component; y is the next.
        start, end: x and y in cells.
        least: how many of the samples must be above FIELD_THRESHOLD.
        map_height: the image's height in cells.

    Returns:
        The score, or -2 as soon as too many samples are too low.
    """
    x, y = float(start[0]), float(start[1])
    dx, dy = end[0] - x, end[1] - y
    length = np.sqrt(dx * dx + dy * dy)
    if length < _SHORTEST:
        return -2.0
    total, misses = 0.0, 0
    for i in range(SAMPLES):
        # From the middle outwards: a wrong pair is mostly seen there first.
        step = (SAMPLES // 2 + (i + 1) // 2 * (1 if i % 2 else -1)) % SAMPLES
        t = step / (SAMPLES - 1)
        value = _sample(pafs[channel], pafs[channel + 1], x + t * dx, y + t * dy, dx, dy) / length
        if not value > FIELD_THRESHOLD:
            misses += 1
            if misses > SAMPLES - least:
                return -2.0
        total += value
    return total / SAMPLES + min(_LONGEST * map_height / length - 1.0, 0.0)


@compiled
def _sample(
    field_x: Any, field_y: Any, x: float, y: float, dx: float, dy: float
) -> float:  # pragma: no cover - compiled
    """The field at a position in cells, times (dx, dy); bilinear, and the border is continued outwards."""
    rows, columns = field_x.shape
    x = min(max(x, 0.0), columns - 1.0)
    y = min(max(y, 0.0), rows - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    u, v = x - left, y - top
    upper = (field_x[top, left] * dx + field_y[top, left] * dy) * (1 - u)
    upper += (field_x[top, right] * dx + field_y[top, right] * dy) * u
    lower = (field_x[bottom, left] * dx + field_y[bottom, left] * dy) * (1 - u)
    lower += (field_x[bottom, right] * dx + field_y[bottom, right] * dy) * u
    return upper * (1 - v) + lower * v
