"""Where a pixel goes, and that it comes back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ImageTooLarge
from worker.pose.geometry import MAX_INPUT_PIXELS, Geometry, plan

SIDES = st.integers(1, 6000)


@given(SIDES, SIDES, st.integers(64, 736), st.sampled_from([4, 8, 16]), st.floats(0, 1), st.floats(0, 1))
def test_every_pixel_comes_back(height: int, width: int, target: int, stride: int, u: float, v: float) -> None:
    try:
        at = plan(height, width, target_height=target, stride=stride)
    except ImageTooLarge:
        return
    source = np.array([u * (width - 1), v * (height - 1)])
    cells = (source + 0.5) * at.scale / stride - 0.5
    assert at.to_source(cells) == pytest.approx(source, abs=1e-3 * max(height, width))


@given(SIDES, SIDES, st.integers(64, 736), st.none() | st.integers(64, 2000))
def test_frames_fit_the_stride_and_the_caps(height: int, width: int, target: int, max_width: int) -> None:
    try:
        at = plan(height, width, target_height=target, stride=8, max_width=max_width)
    except ImageTooLarge:
        return
    assert at.padded_height % 8 == at.padded_width % 8 == 0
    assert 0 <= at.padded_height - at.net_height < 8
    assert 0 <= at.padded_width - at.net_width < 8
    assert at.net_height <= target
    assert at.net_height * at.net_width <= MAX_INPUT_PIXELS
    if max_width is not None:
        assert at.net_width <= max(1, max_width)
    else:
        assert at.net_height == target


def test_a_resized_picture_s_dot_is_where_geometry_says() -> None:
    """The convention is the one of the resize that makes the frame: a dot's centre of mass tells."""
    picture = np.zeros((480, 640), np.float32)
    picture[200:203, 300:303] = 1.0
    at = plan(480, 640, target_height=368, stride=8)
    small = cv2.resize(picture, None, fx=at.scale, fy=at.scale, interpolation=cv2.INTER_AREA)
    rows, columns = np.mgrid[0 : small.shape[0], 0 : small.shape[1]]
    centre = np.array([(small * columns).sum(), (small * rows).sum()]) / small.sum()
    cells = (centre + 0.5) / 8 - 0.5
    assert at.to_source(cells) == pytest.approx([301, 201], abs=0.2)


def test_no_position_leaves_the_image() -> None:
    at = Geometry(source_height=100, source_width=50, scale=1.0, stride=8)
    assert at.to_source(np.array([[-9.0, -9.0], [99.0, 99.0]])).tolist() == [[0, 0], [49, 99]]


def test_what_was_not_found_stays_nowhere() -> None:
    at = Geometry(source_height=100, source_width=50, scale=1.0, stride=8)
    assert np.isnan(at.to_source(np.full((1, 18, 2), np.nan))).all()


def test_a_panorama_is_told_to_be_capped() -> None:
    with pytest.raises(ImageTooLarge, match="set max_width or lower target_height"):
        plan(100, 20_000, target_height=736, stride=8)
    assert plan(100, 20_000, target_height=736, stride=8, max_width=1000).net_width == 1000
