"""Images → people, with nets whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, List, Tuple

import numpy as np
import pytest

from tests.support.synthetic import draw_maps, person
from worker.pose.estimator import EstimateOptions, Estimator

PLAIN = EstimateOptions(target_height=240)
#: The joints that a box tells exactly: the lowest and the ones on its middle.
TOLERANCE = 8.0


def _image(box: Tuple[int, int, int, int], height: int = 480, width: int = 640, value: int = 255) -> np.ndarray:
    """A dark image with a bright box: left, top, right, bottom in source pixels, ends included."""
    image = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = box
    image[top : bottom + 1, left : right + 1] = value
    return image


def _expected(box: Tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    return person((left + right) / 2, top - 0.5, bottom - top + 1)


def _check(estimate: Any, box: Tuple[int, int, int, int], tolerance: float = TOLERANCE) -> None:
    assert len(estimate.people) == 1
    assert estimate.people.found.all()
    assert np.abs(estimate.people.keypoints[0, :, :2] - _expected(box)).max() < tolerance


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        replace(PLAIN, target_height=480),
        replace(PLAIN, target_height=333),  # a frame that has to be padded
        replace(PLAIN, scales=(1.0, 0.7)),
        replace(PLAIN, scales=(0.6, 1.0, 1.5)),
        replace(PLAIN, scales=(1.0, 0.7), merge="max"),
        replace(PLAIN, flip=True),
        replace(PLAIN, flip=True, target_height=333),
        replace(PLAIN, flip=True, scales=(1.0, 1.3), merge="max"),
        replace(PLAIN, max_width=280),
        replace(PLAIN, max_width=280, scales=(1.0, 1.5)),
    ],
)
def test_people_come_out_in_source_pixels(white_box_net: Any, options: EstimateOptions) -> None:
    box = (70, 60, 260, 439)
    (estimate,) = Estimator(white_box_net).estimate([_image(box)], options)
    _check(estimate, box)
    assert set(estimate.timings_ms) == {"preprocess", "net", "associate"}
    assert all(ms >= 0 for ms in estimate.timings_ms.values())
    assert estimate.warnings == ()


def test_people_in_a_reduced_image_are_in_the_source_s_pixels(white_box_net: Any) -> None:
    box = (140, 120, 519, 879)
    (estimate,) = Estimator(white_box_net).estimate([_image(box, 960, 1280)[::2, ::2]], PLAIN, 2)
    _check(estimate, box, 2 * TOLERANCE)


def test_results_keep_the_order_of_images_of_different_sizes(white_box_net: Any) -> None:
    boxes = [(70, 60, 260, 439), (300, 40, 500, 400), (20, 30, 200, 350), (350, 20, 600, 460)]
    shapes = [(480, 640), (600, 800), (400, 300), (480, 640)]
    images = [_image(box, *shape) for box, shape in zip(boxes, shapes)]
    estimates = Estimator(white_box_net).estimate(images, PLAIN)
    for estimate, box, (height, _) in zip(estimates, boxes, shapes):
        _check(estimate, box, TOLERANCE * height / 480)


def test_frames_of_one_shape_share_a_pass(white_box_net: Any) -> None:
    passes: List[Tuple[int, ...]] = []

    def net(frames: np.ndarray) -> Any:
        assert frames.dtype == np.uint8
        passes.append(frames.shape)
        return white_box_net(frames)

    images = [_image((70, 60, 260, 439)), _image((10, 10, 90, 190), 200, 200), _image((300, 60, 500, 439))]
    Estimator(net).estimate(images, replace(PLAIN, scales=(1.0, 0.5)))
    assert sorted(passes) == [(1, 120, 120, 3), (1, 240, 240, 3), (2, 120, 160, 3), (2, 240, 320, 3)]
    passes.clear()
    Estimator(net).estimate(images[:1], replace(PLAIN, flip=True))
    assert sum(shape[0] for shape in passes) == 2


def test_stride_and_padding_are_the_net_s() -> None:
    seen: List[np.ndarray] = []

    def net(frames: np.ndarray) -> Any:
        seen.append(frames)
        height, width = frames.shape[1] // 16, frames.shape[2] // 16
        maps = [draw_maps([person(6.0, 1.0, 12)], height, width)] * len(frames)
        return tuple(np.stack(kind) for kind in zip(*maps))

    image = np.full((250, 200, 3), 9, np.uint8)
    (estimate,) = Estimator(net, stride=16, pad_value=128).estimate([image], EstimateOptions(target_height=250))
    assert seen[0].shape == (1, 256, 208, 3)
    assert (seen[0][0, 250:] == 128).all()
    assert (seen[0][0, :, 200:] == 128).all()
    expected = (person(6.0, 1.0, 12) + 0.5) * 16 - 0.5
    assert np.abs(estimate.people.keypoints[0, :, :2] - expected).max() < 8


def _net_of_confidence(by_height: dict) -> Any:
    """A net that sees the same person at every scale, but with another confidence at each."""

    def net(frames: np.ndarray) -> Any:
        height, width = frames.shape[1] // 8, frames.shape[2] // 8
        heat, paf = draw_maps([(person(40.0, 8.0, 40) + 0.5) * (height / 60) - 0.5], height, width)
        return (heat * by_height[height])[None].repeat(len(frames), 0), paf[None].repeat(len(frames), 0)

    return net


@pytest.mark.parametrize(("merge", "expected"), [("avg", 0.65), ("max", 0.9)])
def test_merging_averages_or_takes_the_surest(merge: str, expected: float) -> None:
    net = _net_of_confidence({60: 0.4, 120: 0.9})
    options = EstimateOptions(target_height=480, scales=(1.0, 2.0), merge=merge)
    (both,) = Estimator(net).estimate([_image((1, 1, 2, 2))], options)
    (sure,) = Estimator(net).estimate([_image((1, 1, 2, 2))], replace(options, scales=(2.0,)))
    shares = both.people.keypoints[0, :, 2] / sure.people.keypoints[0, :, 2]
    assert shares == pytest.approx(np.full(18, expected / 0.9), abs=0.1)


def test_the_order_of_scales_does_not_matter() -> None:
    net = _net_of_confidence({30: 0.5, 60: 0.7, 120: 0.9})
    results = [
        Estimator(net).estimate([_image((1, 1, 2, 2))], EstimateOptions(target_height=480, scales=scales))[0].people
        for scales in ((0.5, 1.0, 2.0), (2.0, 0.5, 1.0))
    ]
    assert np.array_equal(results[0].keypoints, results[1].keypoints)


def test_flip_averages_left_with_right() -> None:
    """A net that finds right wrists only where it looks from left to right: flipping gives it half of both."""

    def net(frames: np.ndarray) -> Any:
        heat, paf = draw_maps([person(29.5, 8.0, 40)], 60, 60)
        heat[7] = 0  # never a left wrist
        return heat[None].repeat(len(frames), 0), paf[None].repeat(len(frames), 0)

    image = np.zeros((480, 480, 3), np.uint8)
    (plain,) = Estimator(net).estimate([image], EstimateOptions(target_height=480))
    (flipped,) = Estimator(net).estimate([image], EstimateOptions(target_height=480, flip=True))
    assert plain.people.found[0].sum() == 17
    assert flipped.people.found[0].all()
    right, left = flipped.people.keypoints[0, 4], flipped.people.keypoints[0, 7]
    assert left[2] == pytest.approx(right[2], rel=1e-3)
    assert right[2] == pytest.approx(plain.people.keypoints[0, 4, 2] / 2, rel=0.05)
    assert left[:2] == pytest.approx([479 - right[0], right[1]], abs=1e-2)


def _crowd_net(frames: np.ndarray) -> Any:
    maps = draw_maps([person(8 + 16 * i, 6.0, 40) for i in range(4)], 60, 80)
    for i, factor in enumerate((0.6, 1.0, 0.7, 0.9)):
        maps[0][:, :, 16 * i : 16 * i + 16] *= factor
    return maps[0][None], maps[1][None]


def test_the_best_people_come_first_and_may_be_all_that_is_wanted() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    options = EstimateOptions(target_height=480)
    (everybody,) = Estimator(_crowd_net).estimate([image], options)
    order = (everybody.people.keypoints[:, 1, 0] // 128).astype(int).tolist()
    assert order == [1, 3, 2, 0]
    assert (np.diff(everybody.people.scores) <= 0).all()
    (two,) = Estimator(_crowd_net).estimate([image], replace(options, max_people=2))
    assert np.array_equal(two.people.keypoints, everybody.people.keypoints[:2])
    least = float(everybody.people.scores[2])
    (three,) = Estimator(_crowd_net).estimate([image], replace(options, min_score=least))
    assert len(three.people) == 3


def test_warnings_reach_the_estimate() -> None:
    def net(frames: np.ndarray) -> Any:
        return np.full((1, 19, 60, 80), np.nan, np.float32), np.zeros((1, 38, 60, 80), np.float32)

    (estimate,) = Estimator(net).estimate([np.zeros((480, 640, 3), np.uint8)], EstimateOptions(target_height=480))
    assert len(estimate.people) == 0
    assert "not finite" in estimate.warnings[0]


@pytest.mark.parametrize(
    "options", [PLAIN, replace(PLAIN, flip=True, scales=(0.6, 1.0)), replace(PLAIN, max_width=280)]
)
def test_what_the_net_will_be_given_is_known_before(white_box_net: Any, options: EstimateOptions) -> None:
    given = []

    def net(frames: np.ndarray) -> Any:
        given.append(frames.size // 3)
        return white_box_net(frames)

    estimator, image = Estimator(net), _image((70, 60, 260, 439))
    asked = estimator.net_pixels(*image.shape[:2], options)
    estimator.estimate([image], options)
    assert asked == sum(given)


def test_no_images_no_estimates(white_box_net: Any) -> None:
    assert Estimator(white_box_net).estimate([], PLAIN) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((480, 640), np.uint8),
        np.zeros((480, 640, 4), np.uint8),
        np.zeros((480, 640, 3), np.float32),
        np.zeros((0, 640, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(white_box_net: Any, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected an image"):
        Estimator(white_box_net).estimate([image], PLAIN)
