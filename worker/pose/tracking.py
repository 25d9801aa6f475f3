"""The same person under the same number from frame to frame.

People of a frame are assigned to the people known so far so that the sum of their similarities is greatest. The
similarity is COCO's object keypoint similarity (cocodataset.org, keypoint evaluation) between where a person's joints
should be by now and where joints were found, with what people may have deviated from their way added to its variance.
Nothing but keypoints, times and sigmas goes in, so the numbers do not depend on how a film was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Tuple

import lap
import numpy as np

#: Area of a person as a share of the squared sides of the box around the joints.
_AREA = 0.22
#: How far a joint may be off the way foreseen after a second, in roots of the person's area: of people whose speed is
#: known, and of people seen once.
_DRIFT, _FIRST_DRIFT = 1.0, 3.0
#: What drift can come to at most, in roots of the person's area.
_MOST_DRIFT = 0.5
#: Seconds within which most of a change of speed is believed, and within which speed fades while nobody is seen.
_SPEED_S, _FADE_S = 0.15, 2.0
#: Joints in common below which a similarity counts for less: one joint alone says little.
_ENOUGH_JOINTS = 4
#: What the similarity of people who were not in the frame before counts for: who was seen last is more likely.
_LOST = 0.7


@dataclass(frozen=True)
class TrackOptions:
    """How people are followed.

    Attributes:
        gap_s: seconds for which a person may be out of sight and still be known.
        min_similarity: from 0 to 1; people less similar than this are different people.
    """

    gap_s: float = 1.0
    min_similarity: float = 0.1


@dataclass(frozen=True)
class _Known:
    """Those who are followed, one row each.

    Attributes:
        ids: int64 (m,).
        joints: float (m, K, 2): where they were seen last; joints not seen since are carried along. NaN: never seen.
        velocities: float (m, 2), pixels a second.
        seen_s: float (m,): when they were seen last.
        times: int64 (m,): in how many frames they were seen.
    """

    ids: np.ndarray
    joints: np.ndarray
    velocities: np.ndarray
    seen_s: np.ndarray
    times: np.ndarray

    def rows(self, chosen: np.ndarray) -> _Known:
        return _Known(*(column[chosen] for column in self._columns()))

    def joined(self, other: _Known) -> _Known:
        return _Known(*(np.concatenate(pair) for pair in zip(self._columns(), other._columns())))

    def _columns(self) -> Tuple[np.ndarray, ...]:
        return self.ids, self.joints, self.velocities, self.seen_s, self.times


class Tracker:
    """Gives people ids, frame by frame, in the order of time.

    Args:
        sigmas: float (K,), see :attr:`worker.pose.skeleton.Skeleton.sigmas`.
        options: how people are followed.
    """

    def __init__(self, sigmas: np.ndarray, options: TrackOptions = TrackOptions()) -> None:
        self._sigmas, self._options = np.asarray(sigmas, float), options
        self._known = _Known(
            np.zeros(0, np.int64),
            np.zeros((0, len(self._sigmas), 2)),
            np.zeros((0, 2)),
            np.zeros(0),
            np.zeros(0, np.int64),
        )
        self._next_id, self._before_s, self._now_s = 0, -np.inf, -np.inf

    def update(self, keypoints: np.ndarray, time_s: float) -> np.ndarray:
        """The ids of the people of the next frame.

        Args:
            keypoints: float (n, K, 3): x, y in pixels, confidence; 0 for a joint that was not found.
            time_s: when the frame is shown; later than the frame before.

        Returns:
            int64 (n,), from 0 on, in the order in which people were first seen, no id twice.

        Raises:
            ValueError: shapes that do not fit, or a time that is not later.
        """
        if keypoints.ndim != 3 or keypoints.shape[1:] != (len(self._sigmas), 3):
            raise ValueError(f"keypoints: expected (n, {len(self._sigmas)}, 3), got {keypoints.shape}")
        if not time_s > self._now_s:
            raise ValueError(f"time_s: expected more than {self._now_s}, got {time_s}")
        self._before_s, self._now_s = self._now_s, time_s
        self._known = self._known.rows(time_s - self._known.seen_s <= self._options.gap_s)
        if not len(keypoints) and not len(self._known.ids):  # as in most frames of many films
            return np.zeros(0, np.int64)
        found = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], np.nan).astype(float)
        gaps = time_s - self._known.seen_s
        faded = _FADE_S * (1 - np.exp(-gaps / _FADE_S))
        foreseen = self._known.joints + (self._known.velocities * faded[:, None])[:, None]
        rows, columns = self._assigned(self._similarities(foreseen, gaps, found))
        ids = np.full(len(found), -1, np.int64)
        ids[columns] = self._known.ids[rows]
        new = np.flatnonzero(ids < 0)
        ids[new] = np.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)
        seen = self._seen(self._known.rows(rows), foreseen[rows], found[columns])
        lost = self._known.rows(np.delete(np.arange(len(gaps)), rows))
        count = len(new)
        begun = _Known(ids[new], found[new], np.zeros((count, 2)), np.full(count, time_s), np.ones(count, np.int64))
        self._known = lost.joined(seen).joined(begun)
        return ids

    def _similarities(self, foreseen: np.ndarray, gaps: np.ndarray, found: np.ndarray) -> np.ndarray:
        """float (m, n), from 0 to 1."""
        areas = body_areas(foreseen)
        drift = np.where(self._known.times > 1, _DRIFT, _FIRST_DRIFT) * gaps
        # Twice OKS's variance, for both ends are found and not known; as shares of the area, (m, K).
        shares = 2 * (2 * self._sigmas) ** 2 + np.minimum(drift, _MOST_DRIFT)[:, None] ** 2
        squares = ((foreseen[:, None] - found[None]) ** 2).sum(-1)  # (m, n, K); NaN unless both are known
        alike = np.exp(-squares / (2 * shares * areas[:, None])[:, None])
        common = np.isfinite(squares).sum(-1)
        lost = np.where(self._known.seen_s < self._before_s, _LOST, 1.0)
        return lost[:, None] * np.nansum(alike, -1) / np.maximum(common, _ENOUGH_JOINTS)

    def _assigned(self, similarities: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pairs that belong together."""
        if similarities.size == 0:
            return np.zeros(0, int), np.zeros(0, int)
        limit = 1 - self._options.min_similarity
        _, partner_of_row, _ = lap.lapjv(1 - similarities, extend_cost=True, cost_limit=limit)
        rows = np.flatnonzero(partner_of_row >= 0)
        return rows, partner_of_row[rows]

    def _seen(self, known: _Known, foreseen: np.ndarray, found: np.ndarray) -> _Known:
        """Those of `known` that were found again."""
        if not len(found):
            return known
        gaps = self._now_s - known.seen_s
        off = _median(found - foreseen)  # pairs have a joint in common, or they were none
        gain = np.maximum(1 / known.times, 1 - np.exp(-gaps / _SPEED_S))
        return replace(
            known,
            joints=np.where(np.isfinite(found), found, foreseen + off[:, None]),
            velocities=known.velocities + (gain / gaps)[:, None] * off,
            seen_s=np.full(len(gaps), self._now_s),
            times=known.times + 1,
        )


def _median(steps: np.ndarray) -> np.ndarray:
    """float (m, 2) of float (m, K, 2): NumPy's nanmedian, whose way of few numbers takes longer than all else here."""
    ordered = np.sort(steps, axis=1)  # NaN last
    middle = np.isfinite(steps).sum(axis=1, keepdims=True)
    pair = [
        np.take_along_axis(ordered, np.maximum(place, 0), axis=1)[:, 0] for place in ((middle - 1) // 2, middle // 2)
    ]
    return np.asarray((pair[0] + pair[1]) / 2)


def body_areas(joints: np.ndarray) -> np.ndarray:
    """The areas of people, float (m,) in square pixels, 1 at least; `joints`: float (m, K, 2), NaN where unknown."""
    sides = np.fmax.reduce(joints, axis=1) - np.fmin.reduce(joints, axis=1)
    return np.fmax(_AREA * (sides**2).sum(-1), 1.0)
