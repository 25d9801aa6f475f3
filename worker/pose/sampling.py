"""What a part affinity field says along a line: values are interpolated only where they are needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.pose.compiled import compiled

#: Samples along a limb, ends included.
SAMPLES = 10
#: Least value of the field, along the limb's direction, at a sample that counts.
FIELD_THRESHOLD = 0.05
#: How far along a limb the samples between its ends are: the middle first, where a wrong pair is mostly seen.
_STEPS = tuple(step / (SAMPLES - 1) for step in (5, 4, 6, 3, 7, 2, 8, 1))
#: A limb longer than this share of the image's height is penalised.
_LONGEST = 0.5
#: Limbs shorter than this have no direction, in cells.
_SHORTEST = 1e-3
#: Less than the score of any limb.
NO_LIMB = -2.0


@compiled
def at_peaks(pafs: Any, channel: int, peaks: Any, part: int, count: int) -> Any:  # pragma: no cover - compiled
    """The first `count` peaks of a part and the field at each: float64 (4, count): x, y, field's x, field's y."""
    values = np.empty((4, count), np.float64)
    for i in range(count):
        x, y = np.float64(peaks[part, i, 0]), np.float64(peaks[part, i, 1])
        values[0, i], values[1, i] = x, y
        values[2, i] = _sample(pafs, channel, x, y, 1.0, 0.0)
        values[3, i] = _sample(pafs, channel, x, y, 0.0, 1.0)
    return values


@compiled
def somewhere(pafs: Any, channel: int, pairs: int) -> Any:  # pragma: no cover - compiled
    """Where a sample can count at all: bool (h, w), false where the four cells that it lies between are all too low.

    Worth its while from some number of `pairs` on; for fewer it is empty.
    """
    rows, columns = pafs.shape[1], pafs.shape[2]
    if pairs < rows * columns // 8:
        return np.empty((0, 0), np.bool_)
    least = np.float32(FIELD_THRESHOLD * FIELD_THRESHOLD)
    counts = np.empty((rows, columns), np.bool_)
    for y in range(rows):
        for x in range(columns):
            counts[y, x] = pafs[channel, y, x] ** 2 + pafs[channel + 1, y, x] ** 2 > least
    for y in range(rows):  # in place: only cells that are still to be written are read
        below = min(y + 1, rows - 1)
        for x in range(columns - 1):
            counts[y, x] = counts[y, x] | counts[y, x + 1] | counts[below, x] | counts[below, x + 1]
        counts[y, columns - 1] |= counts[below, columns - 1]
    return counts


@compiled
def certain_misses(starts: Any, a: int, ends: Any, mask: Any, spare: int, misses: Any) -> None:  # pragma: no cover
    """How many samples of a line from one start to each end are seen to be too low without interpolating.

    Among a hundred people nearly all pairs are wrong, and nearly all of these are seen to be wrong here, in plain
    loops over all ends: first by the field at both ends, then by whether a sample lies where it can count at all.

    Args:
        starts, ends: as :func:`at_peaks`.
        mask: as :func:`somewhere`.
        spare: how many samples may be too low; there is no need to know how many more there are.
        misses: int8 (2, ends), which is filled: misses at the ends alone, and in all.
    """
    x, y, field_x, field_y = starts[0, a], starts[1, a], starts[2, a], starts[3, a]
    for b in range(ends.shape[1]):
        dx, dy = ends[0, b] - x, ends[1, b] - y
        least = FIELD_THRESHOLD * np.sqrt(dx * dx + dy * dy)
        at_start = field_x * dx + field_y * dy <= least
        at_end = ends[2, b] * dx + ends[3, b] * dy <= least
        misses[0, b] = misses[1, b] = np.int8(at_start) + np.int8(at_end)
    if mask.size == 0:
        return
    for b in range(ends.shape[1]):
        dx, dy = ends[0, b] - x, ends[1, b] - y
        for i in range(2):
            t = _STEPS[i]
            misses[1, b] += np.int8(not mask[int(y + t * dy), int(x + t * dx)])
    for b in range(ends.shape[1]):
        dx, dy = ends[0, b] - x, ends[1, b] - y
        for i in range(2, SAMPLES - 2):
            if misses[1, b] > spare:
                break
            t = _STEPS[i]
            misses[1, b] += np.int8(not mask[int(y + t * dy), int(x + t * dx)])


@compiled
def along(
    pafs: Any,
    channel: int,
    starts: Any,
    a: int,
    ends: Any,
    b: int,
    misses: int,
    least: int,
    map_height: float,
) -> float:  # pragma: no cover - compiled
    """The field's mean along the line from start `a` to end `b`, less the penalty for its length.

    Args:
        pafs: float32 (channels, h, w).
        channel: that of the field's x component; y is the next.
        starts, ends: as :func:`at_peaks`.
        misses: how many of the ends' samples are too low, as :func:`certain_misses`.
        least: how many of the samples must be above FIELD_THRESHOLD.
        map_height: the image's height in cells.

    Returns:
        The score, or NO_LIMB as soon as too many samples are too low.
    """
    x, y = starts[0, a], starts[1, a]
    dx, dy = ends[0, b] - x, ends[1, b] - y
    length = np.sqrt(dx * dx + dy * dy)
    if length < _SHORTEST or misses > SAMPLES - least:
        return NO_LIMB
    ux, uy = dx / length, dy / length
    total = (starts[2, a] + ends[2, b]) * ux + (starts[3, a] + ends[3, b]) * uy
    for i in range(SAMPLES - 2):
        t = _STEPS[i]
        value = _sample(pafs, channel, x + t * dx, y + t * dy, ux, uy)
        if not value > FIELD_THRESHOLD:
            misses += 1
            if misses > SAMPLES - least:
                return NO_LIMB
        total += value
    return total / SAMPLES + min(_LONGEST * map_height / length - 1.0, 0.0)


@compiled
def _sample(pafs: Any, channel: int, x: float, y: float, ux: float, uy: float) -> float:  # pragma: no cover - compiled
    """The field at a position in cells, along (ux, uy); bilinear, and the border is continued outwards."""
    rows, columns = pafs.shape[1], pafs.shape[2]
    x = min(max(x, 0.0), columns - 1.0)
    y = min(max(y, 0.0), rows - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    u, v = x - left, y - top
    upper = (pafs[channel, top, left] * ux + pafs[channel + 1, top, left] * uy) * (1 - u)
    upper += (pafs[channel, top, right] * ux + pafs[channel + 1, top, right] * uy) * u
    lower = (pafs[channel, bottom, left] * ux + pafs[channel + 1, bottom, left] * uy) * (1 - u)
    lower += (pafs[channel, bottom, right] * ux + pafs[channel + 1, bottom, right] * uy) * u
    return upper * (1 - v) + lower * v
