"""Image → frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from worker.pose.geometry import plan
from worker.pose.preprocess import to_input


def test_scaled_with_the_exact_factor_and_padded_right_and_bottom() -> None:
    image = np.random.default_rng(0).integers(0, 256, (427, 641, 3), np.uint8)
    at = plan(427, 641, target_height=180, stride=8)
    frame = to_input(image, at, pad_value=7)
    expected = cv2.resize(image, None, fx=180 / 427, fy=180 / 427, interpolation=cv2.INTER_CUBIC)
    assert frame.shape == (184, 272, 3)
    assert expected.shape == (180, 270, 3)
    assert np.array_equal(frame[:180, :270], expected)
    assert (frame[180:] == 7).all()
    assert (frame[:, 270:] == 7).all()


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
