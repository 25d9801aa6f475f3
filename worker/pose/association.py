"""Peaks and part affinity fields → people (after Cao et al., CVPR 2017, section 2.3).

The rules, so that the same maps always give the same people, in whatever order the peaks come:

1. Two peaks of a limb's ends are a candidate if the field between them points from one to the other at nearly all
   samples; its score is the field's mean, less a penalty for a limb longer than half the image.
2. Candidates of all limbs are accepted from the best down. Each peak serves one limb of a kind and one person. An
   accepted limb begins a person, extends one, or makes one of two; it is passed over if that person would have two
   peaks of one kind. Limbs that only join come last.
3. Who then has at least four keypoints and, per keypoint, at least 0.4 of confidences and limb scores together, is a
   person. Others are fragments.
4. People and fragments are completed by weaker limbs and weaker peaks, again from the best down: whoever lacks a
   keypoint may take a peak that nobody has, or a fragment whole. Two people never become one.
5. The score is how well the person can be expected to be placed, see :mod:`worker.pose.scoring`; fragments score below
   PERSON_SCORE, people above it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Tuple

import numpy as np

from worker.pose.compiled import compiled
from worker.pose.peaks import THRESHOLD
from worker.pose.sampling import SAMPLES, along, at_peaks, certain_misses, somewhere

#: Samples that must count, of sampling.SAMPLES: between peaks of THRESHOLD that begin a person, and to complete one.
LEAST_SAMPLES, LEAST_WEAK_SAMPLES = 9, 7
#: Least score of a limb that completes a person.
LEAST_WEAK_SCORE = 0.05
#: Fewest keypoints, and least mean score per keypoint, of a person and of a fragment.
LEAST_PARTS, LEAST_MEAN = 4, 0.4
LEAST_FRAGMENT_PARTS, LEAST_FRAGMENT_MEAN = 3, 0.2
#: What raises limbs that may begin a person above those that only join: more than any score.
_FIRST = 4.0
#: How often people are completed by what was completed before: the longest chain of limbs.
_ROUNDS = 4


def associate(
    peaks: np.ndarray, counts: np.ndarray, pafs: np.ndarray, limbs: np.ndarray, map_height: float
) -> Tuple[np.ndarray, np.ndarray]:
    """Join peaks to people.

    Args:
        peaks: float32 (parts, most, 3): x and y in cells, confidence; ordered as :func:`worker.pose.peaks.find_peaks`.
        counts: int32 (parts,): how many of each part's peaks there are.
        pafs: float32 (channels, h, w).
        limbs: int32 (limbs, 4), see :attr:`worker.pose.skeleton.Skeleton.limb_table`.
        map_height: the image's height in cells.

    Returns:
        float32 (n, parts, 3): x and y in cells, confidence; NaN, NaN, 0 where there is no joint. And bool (n,): who is
        a person, and not a fragment.
    """
    joints, whole = _associate(peaks, counts, pafs, limbs, map_height)
    chosen = peaks[np.arange(joints.shape[1]), np.maximum(joints, 0)]
    chosen[joints < 0] = (np.nan, np.nan, 0.0)
    return chosen, whole


class _Crowd(NamedTuple):
    """Who has which peak so far. People are rows; a row of size 0 is nobody."""

    joints: Any  # int32 (rows, parts): each one's peaks, or -1
    totals: Any  # float64 (rows,): confidences of each one's peaks and scores of their limbs
    sizes: Any  # int32 (rows,): how many peaks each one has
    whole: Any  # bool (rows,): who is a person
    owners: Any  # int32 (parts, most): whose each peak is, or -1
    served: Any  # bool (2, limbs, most): of each limb, which peaks are its start and its end


@compiled
def _associate(peaks: Any, counts: Any, pafs: Any, limbs: Any, map_height: float) -> Any:  # pragma: no cover - compiled
    parts, most = peaks.shape[0], peaks.shape[1]
    rows = 1 + counts.sum()  # nobody has no peak
    crowd = _Crowd(
        np.full((rows, parts), -1, np.int32),
        np.zeros(rows, np.float64),
        np.zeros(rows, np.int32),
        np.zeros(rows, np.bool_),
        np.full((parts, most), -1, np.int32),
        np.zeros((2, limbs.shape[0], most), np.bool_),
    )
    found = _strong(peaks, counts, pafs, limbs, map_height)
    people = 0
    for i in _ranked(found):
        limb, a, b, score, _ = found[i]
        start, end, _, joins_only = limbs[limb]
        if joins_only == 0 and crowd.owners[start, a] < 0 and crowd.owners[end, b] < 0:
            _take(crowd, peaks, people, start, a)
            people += 1
        _link(crowd, peaks, limbs, limb, a, b, score)
    crowd.whole[:] = (crowd.sizes >= LEAST_PARTS) & (crowd.totals >= LEAST_MEAN * crowd.sizes)
    for _ in range(_ROUNDS):
        before = crowd.sizes.sum()
        found = _weak(peaks, counts, pafs, limbs, map_height, crowd)
        for i in _ranked(found):
            limb, a, b, score, _ = found[i]
            _link(crowd, peaks, limbs, limb, a, b, score)
        if crowd.sizes.sum() == before:
            break
    kept = (crowd.sizes >= LEAST_FRAGMENT_PARTS) & (crowd.totals >= LEAST_FRAGMENT_MEAN * crowd.sizes) | crowd.whole
    return crowd.joints[kept], crowd.whole[kept]


@compiled
def _strong(peaks: Any, counts: Any, pafs: Any, limbs: Any, map_height: float) -> Any:  # pragma: no cover - compiled
    """Rule 1. Returns limb, start and end, score and rank (the higher, the earlier) of each candidate."""
    found = [(0, 0, 0, 0.0, 0.0) for _ in range(0)]  # says of what type it is
    sure = np.zeros(len(counts), np.int32)
    for part in range(len(counts)):
        while sure[part] < counts[part] and peaks[part, sure[part], 2] > THRESHOLD:
            sure[part] += 1
    for limb in range(limbs.shape[0]):
        start, end, channel, joins_only = limbs[limb]
        starts = at_peaks(pafs, channel, peaks, start, sure[start])
        ends = at_peaks(pafs, channel, peaks, end, sure[end])
        misses = np.empty((2, sure[end]), np.int8)
        mask = somewhere(pafs, channel, sure[start] * sure[end])
        for a in range(sure[start]):
            certain_misses(starts, a, ends, mask, SAMPLES - LEAST_SAMPLES, misses)
            for b in range(sure[end]):
                if misses[1, b] > SAMPLES - LEAST_SAMPLES:
                    continue
                score = along(pafs, channel, starts, a, ends, b, misses[0, b], LEAST_SAMPLES, map_height)
                if score > 0:
                    found.append((limb, a, b, score, score if joins_only else score + _FIRST))
    return found


@compiled
def _weak(
    peaks: Any, counts: Any, pafs: Any, limbs: Any, map_height: float, crowd: Any
) -> Any:  # pragma: no cover - compiled
    """Rule 4: limbs between somebody's peak and one that they may take. Returns as `_strong`."""
    found = [(0, 0, 0, 0.0, 0.0) for _ in range(0)]
    for limb in range(limbs.shape[0]):
        start, end, channel, _ = limbs[limb]
        starts = at_peaks(pafs, channel, peaks, start, counts[start])
        ends = at_peaks(pafs, channel, peaks, end, counts[end])
        misses = np.empty((2, counts[end]), np.int8)
        mask = somewhere(pafs, channel, 0)  # nearly everyone is complete: few pairs are left
        for a in range(counts[start]):
            one = crowd.owners[start, a]
            if crowd.served[0, limb, a] or (one >= 0 and crowd.joints[one, end] >= 0):
                continue
            certain_misses(starts, a, ends, mask, SAMPLES - LEAST_WEAK_SAMPLES, misses)
            for b in range(counts[end]):
                other = crowd.owners[end, b]
                if crowd.served[1, limb, b] or (one < 0 and other < 0):
                    continue
                if other >= 0 and crowd.joints[other, start] >= 0:
                    continue
                if misses[1, b] > SAMPLES - LEAST_WEAK_SAMPLES:
                    continue
                score = along(pafs, channel, starts, a, ends, b, misses[0, b], LEAST_WEAK_SAMPLES, map_height)
                if score > LEAST_WEAK_SCORE:
                    found.append((limb, a, b, score, score + peaks[start, a, 2] + peaks[end, b, 2]))
    return found


@compiled
def _ranked(found: Any) -> Any:  # pragma: no cover - compiled
    """The order of candidates, the best first; of equals, the one found first."""
    ranks = np.empty(len(found), np.float64)
    for i in range(len(found)):
        ranks[i] = -found[i][4]
    return np.argsort(ranks, kind="mergesort")


@compiled
def _link(
    crowd: Any, peaks: Any, limbs: Any, limb: int, a: int, b: int, score: float
) -> None:  # pragma: no cover - compiled
    """Accept or pass over a limb between peaks `a` and `b`."""
    start, end, joins_only = limbs[limb, 0], limbs[limb, 1], limbs[limb, 3]
    person, other = crowd.owners[start, a], crowd.owners[end, b]
    if crowd.served[0, limb, a] or crowd.served[1, limb, b] or (person < 0 and other < 0):
        return
    if person == other:
        score = 0.0 if joins_only else score
    elif other < 0:
        if not _take(crowd, peaks, person, end, b):
            return
    elif person < 0:
        person = other
        if not _take(crowd, peaks, person, start, a):
            return
    else:
        person = _unite(crowd, person, other)
        if person < 0:
            return
    crowd.served[0, limb, a] = crowd.served[1, limb, b] = True
    crowd.totals[person] += score


@compiled
def _take(crowd: Any, peaks: Any, person: int, part: int, peak: int) -> bool:  # pragma: no cover - compiled
    """Give `person` a peak that nobody has, if they lack it."""
    if crowd.joints[person, part] >= 0:
        return False
    crowd.joints[person, part] = peak
    crowd.owners[part, peak] = person
    crowd.totals[person] += peaks[part, peak, 2]
    crowd.sizes[person] += 1
    return True


@compiled
def _unite(crowd: Any, person: int, other: int) -> int:  # pragma: no cover - compiled
    """Make one of two, if they have no part in common and are not both people; returns who is left, or -1."""
    if crowd.whole[person] and crowd.whole[other]:
        return -1
    for part in range(crowd.joints.shape[1]):
        if crowd.joints[person, part] >= 0 and crowd.joints[other, part] >= 0:
            return -1
    if crowd.whole[other]:
        person, other = other, person
    for part in range(crowd.joints.shape[1]):
        peak = crowd.joints[other, part]
        if peak >= 0:
            crowd.joints[person, part] = peak
            crowd.owners[part, peak] = person
            crowd.joints[other, part] = -1
    crowd.totals[person] += crowd.totals[other]
    crowd.sizes[person] += crowd.sizes[other]
    crowd.totals[other] = 0.0
    crowd.sizes[other] = 0
    return person
