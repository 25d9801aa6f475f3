"""Peaks and part affinity fields → people (after Cao et al., CVPR 2017, section 2.3).

The rules, so that the same maps always give the same people, in whatever order the peaks come:

1. Two peaks of a limb's ends are a candidate if the field between them points from one to the other at nearly all
   samples; its score is the field's mean, less a penalty for a limb longer than half the image.
2. Candidates of all limbs are accepted from the best down. Each peak serves one limb of a kind and one person. An
   accepted limb begins a person, extends one, or makes one of two; it is passed over if that person would have two
   peaks of one kind. Limbs that only join come last.
3. Who then has at least four keypoints (fewer of a small skeleton) and, per keypoint, at least 0.4 of confidences and
   limb scores together, is a person. Others are fragments.
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
from worker.pose.skeleton import Skeleton

#: Samples that must count, of sampling.SAMPLES: between peaks of THRESHOLD that begin a person, and to complete one.
LEAST_SAMPLES, LEAST_WEAK_SAMPLES = 9, 7
#: Least score of a limb that completes a person.
LEAST_WEAK_SCORE = 0.05
#: Least mean score per keypoint of a person and of a fragment.
LEAST_MEAN, LEAST_FRAGMENT_MEAN = 0.4, 0.2
#: What raises limbs that may begin a person above those that only join: more than any score.
_FIRST = 4.0
#: How often people are completed by what was completed before: the longest chain of limbs.
_ROUNDS = 4


def associate(
    peaks: np.ndarray, counts: np.ndarray, pafs: np.ndarray, skeleton: Skeleton, map_height: float
) -> Tuple[np.ndarray, np.ndarray]:
    """Join peaks to people.

    Args:
        peaks: float32 (parts, most, 3): x and y in cells, confidence; ordered as :func:`worker.pose.peaks.find_peaks`.
        counts: int32 (parts,): how many of each part's peaks there are.
        pafs: float32 (channels, h, w).
        skeleton: what the peaks and the fields are of.
        map_height: the image's height in cells.

    Returns:
        float32 (n, parts, 3): x and y in cells, confidence; NaN, NaN, 0 where there is no joint. And bool (n,): who is
        a person, and not a fragment.
    """
    limbs, least = skeleton.limb_table, skeleton.least_parts
    parts, most = peaks.shape[:2]
    if not counts.any():
        return np.empty((0, parts, 3), np.float32), np.empty(0, np.bool_)
    rows = 1 + counts.sum()  # nobody has no peak
    crowd = _Crowd(
        np.full((rows, parts), -1, np.int32),
        np.zeros(rows, np.float64),
        np.zeros(rows, np.int32),
        np.zeros(rows, np.bool_),
        np.full((parts, most), -1, np.int32),
        np.zeros((2, len(limbs), most), np.bool_),
    )
    sure = ((peaks[..., 2] > THRESHOLD) & (np.arange(most) < counts[:, None])).sum(1, dtype=np.int32)
    found, scores = _candidates(peaks, sure, pafs, limbs, map_height, crowd, False, LEAST_SAMPLES, 0.0)
    _link_all(crowd, peaks, limbs, found, scores, scores + np.where(limbs[found[:, 0], 3], 0.0, _FIRST))
    crowd.whole[:] = (crowd.sizes >= least) & (crowd.totals >= LEAST_MEAN * crowd.sizes)
    for _ in range(_ROUNDS):
        before = crowd.sizes.sum()
        found, scores = _candidates(
            peaks, counts, pafs, limbs, map_height, crowd, True, LEAST_WEAK_SAMPLES, LEAST_WEAK_SCORE
        )
        starts, ends = (peaks[limbs[found[:, 0], end], found[:, 1 + end], 2] for end in (0, 1))
        _link_all(crowd, peaks, limbs, found, scores, scores + starts + ends)
        if crowd.sizes.sum() == before:
            break
    kept = (crowd.sizes >= least - 1) & (crowd.totals >= LEAST_FRAGMENT_MEAN * crowd.sizes) | crowd.whole
    joints, whole = crowd.joints[kept], crowd.whole[kept]
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
def _candidates(
    peaks: Any,
    counts: Any,
    pafs: Any,
    limbs: Any,
    map_height: float,
    crowd: Any,
    completing: bool,
    least: int,
    least_score: float,
) -> Any:  # pragma: no cover - compiled
    """Limbs that the field speaks for.

    Args:
        completing: only those between somebody's peak and one that they may take.
        least: samples that must count.
        least_score: what a limb must score more than.

    Returns:
        limb, start and end of each, int32 (n, 3), and its score, float64 (n,).
    """
    pairs = 0
    for limb in range(limbs.shape[0]):
        pairs += counts[limbs[limb, 0]] * counts[limbs[limb, 1]]
    found, scores, count = np.empty((pairs, 3), np.int32), np.empty(pairs, np.float64), 0
    for limb in range(limbs.shape[0]):
        start, end, channel = limbs[limb, 0], limbs[limb, 1], limbs[limb, 2]
        starts = at_peaks(pafs, channel, peaks, start, counts[start])
        ends = at_peaks(pafs, channel, peaks, end, counts[end])
        misses = np.empty((2, counts[end]), np.int8)
        # Nearly everyone who is to be completed lacks little: few pairs are left then.
        mask = somewhere(pafs, channel, 0 if completing else counts[start] * counts[end])
        for a in range(counts[start]):
            one = crowd.owners[start, a]
            if completing and (crowd.served[0, limb, a] or (one >= 0 and crowd.joints[one, end] >= 0)):
                continue
            certain_misses(starts, a, ends, mask, SAMPLES - least, misses)
            for b in range(counts[end]):
                other = crowd.owners[end, b]
                if completing and (crowd.served[1, limb, b] or (one < 0 and other < 0)):
                    continue
                if other >= 0 and crowd.joints[other, start] >= 0:
                    continue
                if misses[1, b] > SAMPLES - least:
                    continue
                score = along(pafs, channel, starts, a, ends, b, misses[0, b], least, map_height)
                if score > least_score:
                    found[count, 0], found[count, 1], found[count, 2], scores[count] = limb, a, b, score
                    count += 1
    return found[:count], scores[:count]


def _link_all(
    crowd: _Crowd, peaks: np.ndarray, limbs: np.ndarray, found: np.ndarray, scores: np.ndarray, ranks: np.ndarray
) -> None:
    """Accept or pass over candidates, those of the highest rank first; of equals, the one found first."""
    _link_in_order(crowd, peaks, limbs, found, scores, np.argsort(-ranks, kind="stable"))


@compiled
def _link_in_order(
    crowd: Any, peaks: Any, limbs: Any, found: Any, scores: Any, order: Any
) -> None:  # pragma: no cover - compiled
    """Accept or pass over each candidate in its turn. Two peaks that nobody has begin a person, if the limb may."""
    people = 0
    while crowd.sizes[people] > 0:
        people += 1
    for i in order:
        limb, a, b = found[i, 0], found[i, 1], found[i, 2]
        start, end, joins_only = limbs[limb, 0], limbs[limb, 1], limbs[limb, 3]
        if joins_only == 0 and crowd.owners[start, a] < 0 and crowd.owners[end, b] < 0:
            _take(crowd, peaks, np.int32(people), start, a)
            people += 1
        _link(crowd, peaks, limbs, limb, a, b, scores[i])


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
