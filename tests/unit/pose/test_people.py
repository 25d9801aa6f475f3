"""The arrays that people are."""

from __future__ import annotations

import numpy as np
import pytest

from worker.pose.people import People


def _people(scores: list) -> People:
    keypoints = np.zeros((len(scores), 18, 3))
    keypoints[:, 0, 0] = np.arange(len(scores))
    return People(keypoints, np.array(scores))


def test_shapes_are_checked_and_types_settled() -> None:
    with pytest.raises(ValueError, match=r"expected \(n, K, 3\), got \(2, 17, 2\)"):
        People(np.zeros((2, 17, 2)), np.zeros(2))
    with pytest.raises(ValueError, match=r"expected \(2,\), got \(3,\)"):
        People(np.zeros((2, 18, 3)), np.zeros(3))
    assert _people([1]).keypoints.dtype == _people([1]).scores.dtype == np.float32


def test_nobody_keeps_its_shape() -> None:
    nobody = People.nobody(18)
    assert len(nobody) == 0
    assert nobody.keypoints.shape == (0, 18, 3)
    assert nobody.found.shape == (0, 18)
    assert nobody.best(3).keypoints.shape == (0, 18, 3)


def test_the_best() -> None:
    people = _people([0.9, 0.6, 0.3])
    assert people.best(2).keypoints[:, 0, 0].tolist() == [0, 1]
    assert len(people.best(None)) == len(people.best(9)) == 3


def test_a_joint_at_the_first_pixel_is_found() -> None:
    keypoints = np.full((1, 18, 3), (np.nan, np.nan, 0.0))
    keypoints[0, 4] = (0.0, 0.0, 0.7)
    assert np.flatnonzero(People(keypoints, np.ones(1)).found).tolist() == [4]
