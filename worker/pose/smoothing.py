"""Joints that tremble less, and do not lag when they move fast: the 1€ filter.

Source: Casiez, Roussel and Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
Systems", CHI 2012. Speeds are in roots of the person's area a second, so that near and far people are treated alike.
"""

from __future__ import annotations

from typing import Dict

import numpy as np

from worker.pose.tracking import body_areas

#: By how much a speed raises the cutoff frequency, in Hz for each root of the person's area a second.
_SPEED_GAIN = 2.0
#: Cutoff frequency of the speed itself, in Hz.
_SPEED_CUTOFF = 1.0
#: Seconds after which a joint that was out of sight begins anew.
_FORGOTTEN_S = 0.5


class Smoother:
    """Smooths the joints of people with ids, frame by frame, in the order of time.

    Args:
        cutoff: Hz, more than 0; of a joint at rest. Less of it: calmer, and slower to follow.
    """

    def __init__(self, cutoff: float) -> None:
        if not cutoff > 0:
            raise ValueError(f"cutoff: expected more than 0 Hz, got {cutoff}")
        self._cutoff = cutoff
        self._joints: Dict[int, _Joints] = {}

    def update(self, keypoints: np.ndarray, ids: np.ndarray, time_s: float) -> np.ndarray:
        """The smoothed keypoints of the people of the next frame.

        Args:
            keypoints: float (n, K, 3): x, y in pixels, confidence; 0 for a joint that was not found.
            ids: int (n,), see :meth:`worker.pose.tracking.Tracker.update`.
            time_s: when the frame is shown; later than the frame before.

        Returns:
            float32 (n, K, 3): confidences, and which joints were found, stay.
        """
        smooth = np.array(keypoints, np.float32)
        self._joints = {i: joints for i, joints in self._joints.items() if joints.in_use(time_s)}
        for person, number in zip(smooth, ids.tolist()):
            joints = self._joints.setdefault(number, _Joints(person.shape[0]))
            found = person[:, 2] > 0
            if found.any():
                person[found, :2] = joints.update(person[:, :2].astype(float), found, time_s, self._cutoff)[found]
        return smooth


class _Joints:
    """The filter's memory of one person's joints."""

    def __init__(self, count: int) -> None:
        self._positions, self._speeds = np.full((count, 2), np.nan), np.zeros((count, 2))
        self._seen_s = np.full(count, -np.inf)

    def in_use(self, now_s: float) -> bool:
        return bool(now_s - self._seen_s.max() <= _FORGOTTEN_S)

    def update(self, positions: np.ndarray, found: np.ndarray, now_s: float, cutoff: float) -> np.ndarray:
        """float (K, 2): smooth positions of the joints that were found."""
        gaps = now_s - self._seen_s
        known = found & (gaps <= _FORGOTTEN_S)
        new = found & ~known
        self._positions[new], self._speeds[new], self._seen_s[found] = positions[new], 0, now_s
        if known.any():
            gap, size = gaps[known, None], np.sqrt(body_areas(np.where(found[:, None], positions, np.nan)[None])[0])
            moved = positions[known] - self._positions[known]
            self._speeds[known] += _weight(_SPEED_CUTOFF, gap) * (moved / gap - self._speeds[known])
            speed = np.linalg.norm(self._speeds[known], axis=1, keepdims=True) / size
            self._positions[known] += _weight(cutoff + _SPEED_GAIN * speed, gap) * moved
        return self._positions


def _weight(cutoff: np.ndarray | float, gap_s: np.ndarray) -> np.ndarray:
    """How much of a new value an exponential low-pass filter takes."""
    turns = 2 * np.pi * cutoff * gap_s
    return turns / (turns + 1)
