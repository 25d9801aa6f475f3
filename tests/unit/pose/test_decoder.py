"""Maps → people: where people are does not change who they are, and no map is too bad."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.synthetic import draw_maps, mirrored, person, same_people
from worker.pose.decoder import decode
from worker.pose.geometry import Geometry
from worker.pose.peaks import MAX_PEAKS
from worker.pose.people import People
from worker.pose.skeletons import COCO_18

HEIGHT, WIDTH = 60, 80


def _noisy(people: List[np.ndarray], height: int = HEIGHT, width: int = WIDTH) -> Any:
    """Maps with the ripples of a real net's, and confidences that differ from joint to joint."""
    heatmaps, pafs = draw_maps(people, height, width)
    rng = np.random.default_rng(len(people))
    heatmaps[:18] *= rng.uniform(0.5, 1.0, (18, 1, 1)).astype(np.float32)
    heatmaps += rng.normal(0, 0.02, heatmaps.shape).astype(np.float32)
    pafs += rng.normal(0, 0.02, pafs.shape).astype(np.float32)
    return heatmaps, pafs


def _equal(one: People, other: People) -> bool:
    return np.array_equal(one.keypoints, other.keypoints, equal_nan=True) and np.array_equal(one.scores, other.scores)


@settings(max_examples=20, deadline=None)
@given(st.integers(-4, 8), st.integers(-3, 6))
def test_translation(dx: int, dy: int) -> None:
    """Maps moved by whole cells give the same people, moved."""
    at = Geometry(HEIGHT * 8, WIDTH * 8, 1.0, 8)
    heatmaps, pafs = _noisy([person(25, 8, 36, (0.3, -0.2)), person(50, 12, 30)])
    border = [slice(None), slice(8, -8), slice(8, -8)]
    for maps in (heatmaps, pafs):  # nothing is pushed over the edge
        inner = maps[tuple(border)].copy()
        maps[:] = 0
        maps[tuple(border)] = inner
    before, _ = decode(heatmaps, pafs, at)
    after, _ = decode(np.roll(heatmaps, (dy, dx), (1, 2)), np.roll(pafs, (dy, dx), (1, 2)), at)
    assert len(before) == 2
    moved = before.keypoints + np.array([8 * dx, 8 * dy, 0], np.float32)
    assert after.keypoints == pytest.approx(moved, abs=1e-3, nan_ok=True)
    assert after.scores == pytest.approx(before.scores, abs=1e-5)


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 3.7])
def test_scale_of_the_source(three_people: List[np.ndarray], factor: float) -> None:
    """The same maps of a source `factor` times as large give people `factor` times as large."""
    maps = _noisy(three_people)
    at = Geometry(HEIGHT * 8, WIDTH * 8, 1.0, 8)
    scaled = Geometry(round(HEIGHT * 8 * factor), round(WIDTH * 8 * factor), 1.0 / factor, 8)
    before, after = decode(*maps, at)[0], decode(*maps, scaled)[0]
    expected = before.keypoints.copy()
    expected[..., :2] = (expected[..., :2] + 0.5) * factor - 0.5
    assert after.keypoints == pytest.approx(expected, abs=1e-2, nan_ok=True)
    assert np.array_equal(after.scores, before.scores)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.4, 1.0))
def test_scale_in_the_maps(factor: float) -> None:
    """People drawn smaller in smaller maps are the same people."""
    height, width = round(HEIGHT * factor), round(WIDTH * factor)
    people = [person(25, 8, 45, (0.3, -0.2)), person(55, 12, 40)]
    at = Geometry(HEIGHT * 8, WIDTH * 8, factor, 8)
    found, _ = decode(*draw_maps([(joints + 0.5) * factor - 0.5 for joints in people], height, width), at)
    assert same_people(found, [joints * 8 + 3.5 for joints in people], tolerance=0.5 * 8 / factor) == []


@pytest.mark.parametrize("seed", range(5))
def test_flip(three_people: List[np.ndarray], seed: int) -> None:
    """Mirrored maps, left and right changed, give mirrored people with the same scores."""
    rng = np.random.default_rng(seed)
    people = [joints + rng.uniform(-0.5, 0.5, 2) for joints in three_people]
    heatmaps, pafs = _noisy(people)
    at = Geometry(HEIGHT * 8, WIDTH * 8, 1.0, 8)
    other_heatmaps = heatmaps[[*COCO_18.mirrored, 18]][:, :, ::-1]
    other_pafs = np.empty_like(pafs)
    channels = {(limb.start, limb.end): limb.paf for limb in COCO_18.limbs}
    for (start, end), channel in channels.items():
        source = channels[COCO_18.mirrored[start], COCO_18.mirrored[end]]
        other_pafs[channel], other_pafs[channel + 1] = -pafs[source, :, ::-1], pafs[source + 1, :, ::-1]
    before, after = decode(heatmaps, pafs, at)[0], decode(other_heatmaps, other_pafs, at)[0]
    assert len(before) == 3
    assert after.keypoints == pytest.approx(mirrored(before.keypoints, WIDTH * 8), abs=1e-2, nan_ok=True)
    assert after.scores == pytest.approx(before.scores, abs=1e-5)


def test_padding_is_not_looked_at(three_people: List[np.ndarray]) -> None:
    heatmaps, pafs = draw_maps(three_people, HEIGHT, WIDTH)
    padded = [np.pad(maps, ((0, 0), (0, 1), (0, 2)), constant_values=1.0) for maps in (heatmaps, pafs)]
    at = Geometry(HEIGHT * 8, WIDTH * 8, 1.0, 8)
    assert _equal(decode(*padded, at)[0], decode(heatmaps, pafs, at)[0])


def test_any_engine_s_arrays_are_taken(three_people: List[np.ndarray], geometry: Geometry) -> None:
    """Half and double precision, strided views, read-only maps; none of them is changed."""
    heatmaps, pafs = draw_maps(three_people, HEIGHT, WIDTH)
    expected, _ = decode(heatmaps, pafs, geometry)
    heatmaps.setflags(write=False)
    joined = np.ascontiguousarray(np.concatenate([heatmaps, pafs]).transpose(1, 2, 0))  # channels last
    assert _equal(decode(heatmaps, pafs, geometry)[0], expected)
    assert _equal(decode(joined.transpose(2, 0, 1)[:19], joined.transpose(2, 0, 1)[19:], geometry)[0], expected)
    assert _equal(decode(heatmaps.astype(np.float64), pafs.astype(np.float64), geometry)[0], expected)
    half, _ = decode(heatmaps.astype(np.float16), pafs.astype(np.float16), geometry)
    assert half.keypoints == pytest.approx(expected.keypoints, abs=1.5, nan_ok=True)


def _hostile() -> Dict[str, Any]:
    shape = (60, 82)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    every_second = ((x % 2 == 0) & (y % 2 == 0)).astype(np.float32)
    huge = np.full((19, *shape), np.float32(3e38))
    return {
        "as many peaks as fit": (np.stack([every_second] * 19), np.ones((38, *shape), np.float32)),
        "noise": (rng.random((19, *shape), np.float32), rng.uniform(-1, 1, (38, *shape)).astype(np.float32)),
        "chequered": (np.stack([((x + y) % 2).astype(np.float32)] * 19), np.ones((38, *shape), np.float32)),
        "constant": (np.ones((19, *shape), np.float32), np.ones((38, *shape), np.float32)),
        "rising": (np.stack([(x + y) / 200.0] * 19), np.ones((38, *shape))),
        "not a number": (np.full((19, *shape), np.nan), np.full((38, *shape), np.nan)),
        "infinite": (np.full((19, *shape), np.inf), np.full((38, *shape), -np.inf)),
        "infinite here and there": (np.where(every_second, np.inf, 0.5) * np.ones((19, 1, 1)), np.zeros((38, *shape))),
        "huge": (huge, -np.ones((38, *shape), np.float32) * np.float32(3e38)),
        "nothing": (np.zeros((19, *shape)), np.zeros((38, *shape))),
        "less than nothing": (-np.ones((19, *shape)), -np.ones((38, *shape))),
    }


@pytest.mark.parametrize("name", _hostile())
def test_hostile_maps_end_soon_in_valid_people(name: str) -> None:
    heatmaps, pafs = _hostile()[name]
    at = Geometry(480, 656, 1.0, 8)
    decode(np.zeros((19, 2, 2), np.float32), np.zeros((38, 2, 2), np.float32), at)  # compiled
    start = time.process_time()
    people, warnings = decode(heatmaps, pafs, at)
    assert time.process_time() - start < 20  # seconds: bounded on the slowest machine, not fast
    found = people.keypoints[people.found]
    assert np.isfinite(found).all()
    assert ((found[:, 2] > 0) & (found[:, 2] <= 1)).all()
    assert np.isfinite(people.scores).all()
    assert len(people) <= MAX_PEAKS * 19
    if name in ("as many peaks as fit", "noise"):
        assert "peaks" in warnings[0]
        assert "were dropped" in warnings[0]
    if name in ("constant", "chequered"):
        assert "is level over" in warnings[0]
    if name in ("not a number", "infinite", "infinite here and there"):
        assert any("not finite" in warning for warning in warnings)
    if name in ("nothing", "less than nothing", "not a number"):
        assert len(people) == 0


def test_one_bad_value_costs_one_cell(three_people: List[np.ndarray], geometry: Geometry) -> None:
    heatmaps, pafs = draw_maps(three_people, HEIGHT, WIDTH)
    expected, _ = decode(heatmaps, pafs, geometry)
    heatmaps[3, 50, 2], pafs[7, 50, 2] = np.nan, -np.inf
    people, warnings = decode(heatmaps, pafs, geometry)
    assert _equal(people, expected)
    assert len(warnings) == 2


def test_eight_threads_find_the_same_people(geometry: Geometry) -> None:
    crowd = [person(5 + 9 * (i % 8), 1 + 19 * (i // 8), 17, (0.2 * (i % 3), -0.1)) for i in range(24)]
    maps = _noisy(crowd)
    expected, _ = decode(*maps, geometry)
    assert len(expected) == 24
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: decode(*maps, geometry)[0], range(64)))
    assert all(_equal(people, expected) for people in found)


@pytest.mark.parametrize(
    "shapes",
    [((18, 5, 5), (38, 5, 6)), ((5, 5), (38, 5, 5)), ((17, 5, 5), (38, 5, 5)), ((19, 5, 5), (38, 25))],
)
def test_maps_that_do_not_fit_are_refused(shapes: Any, geometry: Geometry) -> None:
    with pytest.raises(ValueError, match="expected maps"):
        decode(np.zeros(shapes[0]), np.zeros(shapes[1]), geometry)


def test_too_few_fields_are_refused(geometry: Geometry) -> None:
    with pytest.raises(ValueError, match="expected maps"):
        decode(np.zeros((19, 5, 5)), np.zeros((36, 5, 5)), geometry)
