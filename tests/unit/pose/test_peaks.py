"""Heatmaps → peaks."""

from __future__ import annotations

from typing import List, Tuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.synthetic import SIGMA
from worker.pose.peaks import THRESHOLD, find_peaks, interpolation


def _bumps(places: List[Tuple[float, float]], height: int = 30, width: int = 40, value: float = 1.0) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    heat = np.zeros((height, width))
    for x, y in places:
        heat = np.maximum(heat, value * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA**2)))
    return heat[None].astype(np.float32)


def _peaks(heatmaps: np.ndarray, most: int = 16) -> np.ndarray:
    peaks, counts, _, _ = find_peaks(heatmaps, *heatmaps.shape[1:], THRESHOLD, most, *interpolation())
    return peaks[0, : counts[0]]


@settings(deadline=None)
@given(st.floats(2, 37), st.floats(2, 27))
def test_a_bump_is_found_to_a_tenth_of_a_cell(x: float, y: float) -> None:
    (peak,) = _peaks(_bumps([(x, y)]))
    assert peak[:2] == pytest.approx((x, y), abs=0.1)


@pytest.mark.parametrize("place", [(0, 0), (39, 0), (0, 29), (39, 29), (20, 0), (0, 12)])
def test_a_bump_on_the_border_is_found_there(place: Tuple[int, int]) -> None:
    (peak,) = _peaks(_bumps([place]))
    assert peak[:2] == pytest.approx(place, abs=0.51)


def test_the_refined_value_is_that_of_the_smooth_upsampled_map() -> None:
    """The same bicubic surface and Gaussian as if the whole map were upsampled: 9 pixels to a cell, sigma 3."""
    heat = _bumps([(12.3, 9.8), (25.1, 20.4)], value=0.7)[0]
    large = cv2.resize(heat, None, fx=9, fy=9, interpolation=cv2.INTER_CUBIC)
    smooth = cv2.GaussianBlur(large, (25, 25), 3)
    for x, y, value in _peaks(heat[None]):
        column, row = round((x + 0.5) * 9 - 0.5), round((y + 0.5) * 9 - 0.5)
        around = smooth[row - 3 : row + 4, column - 3 : column + 4]
        assert value == pytest.approx(around.max(), abs=0.02)


def test_a_plateau_is_one_peak() -> None:
    heat = np.zeros((1, 12, 12), np.float32)
    heat[0, 5:7, 5:7] = 0.9
    (peak,) = _peaks(heat)
    assert peak[:2] == pytest.approx((5.5, 5.5), abs=0.05)


def test_nothing_below_the_threshold_and_nothing_in_the_padding() -> None:
    assert len(_peaks(_bumps([(10, 10)], value=0.9 * THRESHOLD))) == 0
    heat = _bumps([(10, 10), (36, 10)])
    peaks, counts, _, _ = find_peaks(heat, 30, 30, THRESHOLD, 16, *interpolation())
    assert counts.tolist() == [1]
    assert peaks[0, 0, 0] == pytest.approx(10, abs=0.1)


def test_of_too_many_the_least_sure_are_dropped() -> None:
    rng = np.random.default_rng(3)
    values = rng.permutation(np.linspace(0.2, 1.0, 48)).astype(np.float32)
    heat = np.zeros((1, 30, 40), np.float32)
    heat[0, 2:28:5, 2:40:5][:6] = values.reshape(6, 8)
    peaks, counts, dropped, _ = find_peaks(heat, 30, 40, THRESHOLD, 10, *interpolation())
    assert counts.tolist() == [10]
    assert dropped == 38
    everything = _peaks(heat, most=48)
    assert np.sort(peaks[0, :, 2]) == pytest.approx(np.sort(everything[:, 2])[-10:])
