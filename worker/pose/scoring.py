"""How good a person is: the object keypoint similarity (OKS) that can be expected of them.

OKS (cocodataset.org, keypoint evaluation) of one joint at a distance d is exp(-d² / 2v) with v = area · (2 sigma)².
If the error of each coordinate is normal with variance e², the expectation is v / (v + e²): maps are coarse, so small
people are placed less well than large ones. A joint that is found at all is taken to be right with the probability
that its confidence says.
"""

from __future__ import annotations

import numpy as np

#: Error of a joint's coordinates, in cells.
_ERROR = 0.35
#: Area of a person as a share of the square of the longer side around the joints: as COCO's outlines have it.
_AREA = 0.24
#: What people score at least, and fragments at most.
PERSON_SCORE = 0.1


def score_people(joints: np.ndarray, whole: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Scores of people.

    Args:
        joints: float32 (n, parts, 3): x and y in cells, confidence; NaN, NaN, 0 where there is no joint.
        whole: bool (n,): who is a person, and not a fragment.
        sigmas: float (parts,), see :attr:`worker.pose.skeleton.Skeleton.sigmas`.

    Returns:
        float32 (n,) from 0 to 1: the sum of the joints' expected similarities, divided by the geometric mean of how
        many were found and how many there could be; brought above PERSON_SCORE for people, and below for fragments.
    """
    found = joints[..., 2] > 0
    seen = found[..., None]
    positions = joints[..., :2]
    sides = np.where(seen, positions, -np.inf).max(1) - np.where(seen, positions, np.inf).min(1)
    variances = _AREA * sides.max(1)[:, None] ** 2 * (2 * sigmas) ** 2
    similarities = np.clip(joints[..., 2], 0, 1) * (variances / (variances + _ERROR**2))
    expected = np.clip(similarities.sum(1) / np.sqrt(found.sum(1) * joints.shape[1]), 0, 1)
    return np.where(whole, PERSON_SCORE + (1 - PERSON_SCORE) * expected, PERSON_SCORE * expected).astype(np.float32)
