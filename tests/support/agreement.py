"""How far two results for one image agree, joint by joint."""

from __future__ import annotations

from typing import Tuple

import numpy as np


def agreement(one: np.ndarray, other: np.ndarray, near: float) -> Tuple[int, int]:
    """Compare keypoints (n, 18, 3) with keypoints (m, 18, 3), people matched one to one, the best pairs first.

    Returns:
        Of the joints that both persons of a pair have: how many, and how many of them lie within `near` pixels.
    """
    pairs = []
    for i, person in enumerate(one):
        for j, candidate in enumerate(other):
            both = (person[:, 2] > 0) & (candidate[:, 2] > 0)
            close = int((np.linalg.norm(person[both, :2] - candidate[both, :2], axis=1) <= near).sum())
            pairs.append((close, int(both.sum()), i, j))
    joints = agreeing = 0
    taken: set = set()
    for close, shared, i, j in sorted(pairs, reverse=True):
        if close and ("one", i) not in taken and ("other", j) not in taken:
            taken |= {("one", i), ("other", j)}
            joints, agreeing = joints + shared, agreeing + close
    return joints, agreeing
