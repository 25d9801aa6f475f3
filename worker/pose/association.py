"""Peaks and part affinity fields → people (Cao et al., CVPR 2017, section 2.3).

The rules, so that the same maps always give the same people, in whatever order the peaks come:

1. Peaks of a keypoint are taken by confidence, then from top to bottom, then from left to right.
2. A pair of peaks is a candidate for a limb if the field along it points from one to the other at enough of its
   samples; its score is the field's mean, less a penalty for a limb longer than half the image.
3. Limb by limb, candidates are accepted from the best score down; each peak serves one limb of a kind.
4. An accepted limb extends the person who has one of its ends. If two people have one end each and no keypoint in
   common, they become one; if they do have one in common, the first of them keeps the limb's end that it has.
5. A person has at least four keypoints and, per keypoint, at least 0.4 of confidences and limb scores together.
   That sum, as a share of what a complete person can have, is the person's score; people are ordered by it.
"""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np

from worker.pose.compiled import compiled

#: Samples along a limb, ends included.
SAMPLES = 10
#: Least value of the field, along the limb's direction, at a sample that counts.
FIELD_THRESHOLD = 0.05
#: How many of the samples must count.
LEAST_SAMPLES = 9
#: Fewest keypoints of a person, and least mean score.
LEAST_PARTS = 4
LEAST_MEAN = 0.4


def associate(
    peaks: np.ndarray, counts: np.ndarray, pafs: np.ndarray, limbs: np.ndarray, map_height: float
) -> Tuple[np.ndarray, np.ndarray]:
    """Join peaks to people.

    Args:
        peaks: float32 (parts, most, 3): x and y in cells, confidence.
        counts: int32 (parts,): how many of each part's peaks there are.
        pafs: float32 (channels, h, w).
        limbs: int32 (limbs, 4), see :attr:`worker.pose.skeleton.Skeleton.limb_table`.
        map_height: the image's height in cells.

    Returns:
        int32 (n, parts): for each person the index of each joint's peak in the returned peaks, or -1; float32 (n,):
        scores, highest first; and the peaks in the order that the indices mean.
    """
    ordered = peaks.copy()
    for part in range(len(peaks)):
        own = peaks[part, : counts[part]]
        ordered[part, : counts[part]] = own[np.lexsort((own[:, 0], own[:, 1], -own[:, 2]))]
    joints, scores = _associate(ordered, counts, pafs, limbs, map_height)
    order = np.lexsort((*(joints[:, i] for i in range(joints.shape[1])), -scores))
    return _pack(joints[order], scores[order], ordered)


def _pack(joints: np.ndarray, scores: np.ndarray, peaks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The people's joints as float32 (n, parts, 3): x and y in cells, confidence; NaN, NaN, 0 where there is none."""
    parts = np.arange(joints.shape[1])
    chosen = peaks[parts, np.maximum(joints, 0)]
    chosen[joints < 0] = (np.nan, np.nan, 0.0)
    return chosen, scores


@compiled
def _associate(peaks: Any, counts: Any, pafs: Any, limbs: Any, map_height: float) -> Any:  # pragma: no cover - compiled
    parts = peaks.shape[0]
    most = 0
    for limb in range(limbs.shape[0]):
        most += min(counts[limbs[limb, 0]], counts[limbs[limb, 1]])
    joints = np.full((most, parts), -1, np.int32)
    totals = np.zeros(most, np.float64)  # sum of the peaks' confidences and the limbs' scores
    people = 0
    for limb in range(limbs.shape[0]):
        start, end, channel, joins_only = limbs[limb]
        pairs, scores, number = _candidates(peaks, counts, pafs, start, end, channel, map_height)
        start_taken = np.zeros(counts[start], np.bool_)
        end_taken = np.zeros(counts[end], np.bool_)
        for place in np.argsort(-scores[:number], kind="mergesort"):
            a, b = pairs[place]
            if start_taken[a] or end_taken[b]:
                continue
            start_taken[a] = end_taken[b] = True
            people = _add_limb(joints, totals, people, peaks, start, end, a, b, scores[place], joins_only)
    return _worthy(joints, totals, people, parts + limbs.shape[0])


@compiled
def _candidates(
    peaks: Any, counts: Any, pafs: Any, start: int, end: int, channel: int, map_height: float
) -> Any:  # pragma: no cover - compiled
    pairs = np.empty((counts[start] * counts[end], 2), np.int32)
    scores = np.empty(counts[start] * counts[end], np.float64)
    number = 0
    for a in range(counts[start]):
        for b in range(counts[end]):
            x, y = peaks[start, a, 0], peaks[start, a, 1]
            dx, dy = peaks[end, b, 0] - x, peaks[end, b, 1] - y
            length = np.sqrt(dx * dx + dy * dy)
            if length < 1e-3:
                continue
            mean = _along(pafs[channel], pafs[channel + 1], x, y, dx, dy, length)
            score = mean + min(0.5 * map_height / length - 1.0, 0.0)
            if score > 0:
                pairs[number, 0], pairs[number, 1], scores[number] = a, b, score
                number += 1
    return pairs, scores, number


@compiled
def _along(
    field_x: Any, field_y: Any, x: float, y: float, dx: float, dy: float, length: float
) -> float:  # pragma: no cover - compiled
    """The field's mean along a limb, or -1 as soon as too many samples are too low."""
    total, misses = 0.0, 0
    for i in range(SAMPLES):
        # From the middle outwards: a wrong pair is mostly seen there first.
        step = (SAMPLES // 2 + (i + 1) // 2 * (1 if i % 2 else -1)) % SAMPLES
        t = step / (SAMPLES - 1)
        px, py = x + t * dx, y + t * dy
        value = (_sample(field_x, px, py) * dx + _sample(field_y, px, py) * dy) / length
        if not value > FIELD_THRESHOLD:
            misses += 1
            if misses > SAMPLES - LEAST_SAMPLES:
                return -1.0
        total += value
    return total / SAMPLES


@compiled
def _sample(field: Any, x: float, y: float) -> float:  # pragma: no cover - compiled
    """The field at a position in cells, bilinear between the four around; the border is continued outwards."""
    rows, columns = field.shape
    x = min(max(x, 0.0), columns - 1.0)
    y = min(max(y, 0.0), rows - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    u, v = x - left, y - top
    upper = field[top, left] * (1 - u) + field[top, right] * u
    lower = field[bottom, left] * (1 - u) + field[bottom, right] * u
    return upper * (1 - v) + lower * v


@compiled
def _add_limb(
    joints: Any,
    totals: Any,
    people: int,
    peaks: Any,
    start: int,
    end: int,
    a: int,
    b: int,
    score: float,
    joins_only: int,
) -> int:  # pragma: no cover - compiled
    """Rule 4; returns how many people there are now."""
    first, second = _owners(joints, people, start, end, a, b)
    if first < 0:
        if joins_only:
            return people
        joints[people, start], joints[people, end] = a, b
        totals[people] = peaks[start, a, 2] + peaks[end, b, 2] + score
        return people + 1
    if second >= 0 and not _share(joints[first], joints[second]):
        for part in range(joints.shape[1]):
            joints[first, part] = max(joints[first, part], joints[second, part])
        totals[first] += totals[second] + score
        for person in range(second, people - 1):
            joints[person], totals[person] = joints[person + 1], totals[person + 1]
        return people - 1
    if joints[first, end] < 0 and joints[first, start] == a:
        joints[first, end] = b
        totals[first] += peaks[end, b, 2] + score
    elif joints[first, start] < 0 and joints[first, end] == b:
        joints[first, start] = a
        totals[first] += peaks[start, a, 2] + score
    return people


@compiled
def _owners(joints: Any, people: int, start: int, end: int, a: int, b: int) -> Any:  # pragma: no cover - compiled
    """The first two people who have an end of the limb, or -1."""
    first = -1
    for person in range(people):
        if joints[person, start] == a or joints[person, end] == b:
            if first >= 0:
                return first, person
            first = person
    return first, -1


@compiled
def _share(one: Any, other: Any) -> bool:  # pragma: no cover - compiled
    return bool(np.any((one >= 0) & (other >= 0)))


@compiled
def _worthy(joints: Any, totals: Any, people: int, complete: int) -> Any:  # pragma: no cover - compiled
    kept = np.empty_like(joints[:people])
    scores = np.empty(people, np.float32)
    number = 0
    for person in range(people):
        parts = 0
        for joint in joints[person]:
            parts += joint >= 0
        if parts >= LEAST_PARTS and totals[person] / parts >= LEAST_MEAN:
            kept[number] = joints[person]
            scores[number] = totals[person] / complete
            number += 1
    return kept[:number], scores[:number]
