"""The people in one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional

import numpy as np


@dataclass(frozen=True)
class People:
    """The people in one image, best first.

    Attributes:
        keypoints: float32 (n, K, 3): x and y in source pixels, confidence in [0, 1]. A joint that was not found has
            the confidence 0 and the position NaN. (0, 0) is a position like any other. A skeleton says which is which.
        scores: float32 (n,), in [0, 1] for maps in [0, 1].
        parts: what else was looked for, by the names in :data:`worker.pose.skeletons.PARTS`: float32 (n, K', 3), as
            keypoints.

    Raises:
        ValueError: the shapes do not fit.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    parts: Dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.keypoints.ndim != 3 or self.keypoints.shape[2] != 3:
            raise ValueError(f"keypoints: expected (n, K, 3), got {self.keypoints.shape}")
        if self.scores.shape != self.keypoints.shape[:1]:
            raise ValueError(f"scores: expected ({len(self.keypoints)},), got {self.scores.shape}")
        for name, joints in self.parts.items():
            if joints.ndim != 3 or joints.shape[::2] != (len(self.keypoints), 3):
                raise ValueError(f"{name}: expected ({len(self.keypoints)}, K, 3), got {joints.shape}")
        object.__setattr__(self, "parts", {name: joints.astype(np.float32) for name, joints in self.parts.items()})
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
        parts = {name: joints[:count] for name, joints in self.parts.items()}
        return People(self.keypoints[:count], self.scores[:count], parts)

    def scored(self, least: float) -> People:
        """Those who are scored `least` or better."""
        kept = self.scores >= np.float32(least)
        return People(self.keypoints[kept], self.scores[kept], {name: one[kept] for name, one in self.parts.items()})
