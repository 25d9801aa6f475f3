"""The people in one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np


@dataclass(frozen=True)
class People:
    """The people in one image, best first.

    Attributes:
        keypoints: float32 (n, K, 3): x and y in source pixels, confidence in [0, 1]. A joint that was not found has
            the confidence 0 and the position NaN. (0, 0) is a position like any other. A skeleton says which is which.
        scores: float32 (n,), in [0, 1] for maps in [0, 1].

    Raises:
        ValueError: the shapes do not fit.
    """

    keypoints: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        if self.keypoints.ndim != 3 or self.keypoints.shape[2] != 3:
            raise ValueError(f"keypoints: expected (n, K, 3), got {self.keypoints.shape}")
        if self.scores.shape != self.keypoints.shape[:1]:
            raise ValueError(f"scores: expected ({len(self.keypoints)},), got {self.scores.shape}")
        for name in ("keypoints", "scores"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def found(self) -> np.ndarray:
        """bool (n, K): which joints were found."""
        return np.asarray(self.keypoints[:, :, 2] > 0)

    @classmethod
    def nobody(cls, joints: int) -> People:
        """No people of as many `joints`: arrays of length 0 that keep their shapes."""
        return cls(np.zeros((0, joints, 3), np.float32), np.zeros(0, np.float32))

    def best(self, count: Optional[int]) -> People:
        """The first `count`; None: all."""
        return People(self.keypoints[:count], self.scores[:count])
