"""The algorithm that the decoder is measured against, step by step and with no regard to time.

Cao et al. (CVPR 2017, section 2) as their demonstration has it: every map is upsampled to the source's size; heatmaps
are smoothed; peaks are compared with their four neighbours; fields are sampled at whole pixels; people are assembled
limb after limb. Needs NumPy and OpenCV only.
"""

from __future__ import annotations

from typing import List, Tuple

import cv2
import numpy as np

from worker.pose.geometry import Geometry
from worker.pose.people import People
from worker.pose.skeleton import Limb
from worker.pose.skeletons import COCO_18

#: Width of the smoothing, in source pixels; least peak; samples along a limb; least value of one that counts.
SIGMA, PEAK, SAMPLES, FIELD = 3.0, 0.1, 10, 0.05

#: A candidate for a limb: index of its start and end among the peaks of their kinds, score.
Candidate = Tuple[int, int, float]


def decode_reference(heatmaps: np.ndarray, pafs: np.ndarray, geometry: Geometry) -> People:
    """Find the people in maps (19, h, w) and (38, h, w), as :func:`worker.pose.decode`."""
    heat, fields = _upsampled(heatmaps[:18], geometry), _upsampled(pafs, geometry)
    peaks, total = [], 0
    for part in range(18):
        found = _peaks(heat[:, :, part])
        peaks.append([(x, y, value, total + i) for i, (x, y, value) in enumerate(found)])
        total += len(found)
    subset: List[np.ndarray] = []  # of each person: 18 peak numbers or -1, sum of scores, number of joints
    by_number = [peak for part in peaks for peak in part]
    for limb in COCO_18.limbs:
        field = fields[:, :, limb.paf : limb.paf + 2]
        for a, b, score in _matched(_candidates(peaks[limb.start], peaks[limb.end], field, geometry.source_height)):
            subset = _assembled(subset, limb, peaks[limb.start][a], peaks[limb.end][b], score)
    kept = [person for person in subset if person[19] >= 4 and person[18] / person[19] >= 0.4]
    keypoints = np.full((len(kept), 18, 3), (np.nan, np.nan, 0.0))
    for row, person in zip(keypoints, kept):
        for part in range(18):
            if person[part] >= 0:
                row[part] = by_number[int(person[part])][:3]
    return People(keypoints, np.array([person[18] for person in kept], np.float32))


def _upsampled(maps: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Maps (c, h, w) → (H, W, c): first to the frame's size, then without its padding to the source's."""
    channels = np.ascontiguousarray(maps.transpose(1, 2, 0))
    frame = cv2.resize(channels, None, fx=geometry.stride, fy=geometry.stride, interpolation=cv2.INTER_CUBIC)
    image = frame[: geometry.net_height, : geometry.net_width]
    return cv2.resize(image, (geometry.source_width, geometry.source_height), interpolation=cv2.INTER_CUBIC)


def _peaks(heat: np.ndarray) -> List[Tuple[int, int, float]]:
    smooth = cv2.GaussianBlur(heat, (25, 25), SIGMA)
    framed = np.pad(smooth, 1)
    higher = np.ones(smooth.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        higher &= smooth >= framed[dy : dy + smooth.shape[0], dx : dx + smooth.shape[1]]
    rows, columns = np.nonzero(higher & (smooth > PEAK))
    return [(int(x), int(y), float(heat[y, x])) for y, x in zip(rows, columns)]


def _candidates(starts: list, ends: list, field: np.ndarray, height: int) -> List[Candidate]:
    found = []
    for i, start in enumerate(starts):
        for j, end in enumerate(ends):
            across = np.subtract(end[:2], start[:2])
            length = float(np.hypot(*across))
            if length == 0:
                continue
            columns = np.round(np.linspace(start[0], end[0], SAMPLES)).astype(int)
            rows = np.round(np.linspace(start[1], end[1], SAMPLES)).astype(int)
            values = field[rows, columns] @ (across / length)
            score = float(values.mean()) + min(0.5 * height / length - 1, 0)
            if (values > FIELD).sum() > 0.8 * SAMPLES and score > 0:
                found.append((i, j, score))
    return found


def _matched(candidates: List[Candidate]) -> List[Candidate]:
    """The best candidates such that each peak serves one limb."""
    chosen: List[Candidate] = []
    for a, b, score in sorted(candidates, key=lambda candidate: candidate[2], reverse=True):
        if all(a != other[0] and b != other[1] for other in chosen):
            chosen.append((a, b, score))
    return chosen


def _assembled(subset: List[np.ndarray], limb: Limb, start: tuple, end: tuple, score: float) -> List[np.ndarray]:
    owners = [i for i, person in enumerate(subset) if person[limb.start] == start[3] or person[limb.end] == end[3]]
    if len(owners) == 1:
        person = subset[owners[0]]
        if person[limb.end] != end[3]:
            person[limb.end] = end[3]
            person[18:] += (end[2] + score, 1)
    elif len(owners) >= 2:
        one, other = subset[owners[0]], subset[owners[1]]
        if not ((one[:18] >= 0) & (other[:18] >= 0)).any():
            one[:18] = np.maximum(one[:18], other[:18])
            one[18:] += other[18:] + (score, 0)
            del subset[owners[1]]
        else:
            one[limb.end] = end[3]
            one[18:] += (end[2] + score, 1)
    elif not limb.joins_only:
        person = np.full(20, -1.0)
        person[[limb.start, limb.end]] = start[3], end[3]
        person[18:] = (start[2] + end[2] + score, 2)
        subset.append(person)
    return subset
