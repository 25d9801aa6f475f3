"""Image → frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from worker.pose.geometry import plan
from worker.pose.preprocess import to_input


@pytest.mark.parametrize(("height", "kernel"), [(180, cv2.INTER_AREA), (500, cv2.INTER_LINEAR)])
def test_scaled_with_the_exact_factor_and_padded_right_and_bottom(height: int, kernel: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (427, 641, 3), np.uint8)
    at = plan(427, 641, target_height=height, stride=8)
    frame = to_input(image, at, pad_value=7)
    expected = cv2.resize(image, None, fx=height / 427, fy=height / 427, interpolation=kernel)
    assert frame.shape == (at.padded_height, at.padded_width, 3)
    assert expected.shape[0] == height
    assert np.array_equal(frame[:height, : expected.shape[1]], expected)
    assert (frame[height:] == 7).all()
    assert (frame[:, expected.shape[1] :] == 7).all()


def test_an_image_that_fits_is_left_as_it_is() -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 72, 3), np.uint8)
    assert np.array_equal(to_input(image, plan(64, 72, target_height=64, stride=8), 0), image)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3000, 2), (7, 8)])
def test_the_smallest_images_have_a_frame(size: tuple) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    at = plan(*size, target_height=64, stride=8)
    frame = to_input(image, at, 0)
    assert frame.shape == (at.padded_height, at.padded_width, 3)
    assert (frame[: at.net_height, : at.net_width] == 200).all()
