"""A second look at people who are small in the net's input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Tuple

import numpy as np
import pytest

from tests.support.synthetic import person
from worker.pose.estimator import MOST_CROPS, EstimateOptions, Estimator
from worker.pose.people import People
from worker.pose.refine import Crop, combine, plan_crops, without_doubles
from worker.pose.skeletons import COCO_18

SIGMAS = np.asarray(COCO_18.sigmas)
ONCE = EstimateOptions(target_height=240, refine="once")
TWICE = replace(ONCE, refine="twice")
SMALL = (300, 200, 350, 299)


def _people(*found: Tuple[float, float, float, float]) -> People:
    """People by x and y of their upper end, size in pixels, and score."""
    joints = [np.column_stack([person(x, y, size), np.full(18, 0.9)]) for x, y, size, _ in found]
    return People(np.reshape(joints, (-1, 18, 3)), np.array([one[3] for one in found], np.float32))


def _image(box: Tuple[int, int, int, int], height: int = 480, width: int = 640) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = box
    image[top : bottom + 1, left : right + 1] = 255
    return image


class _Watched:
    """A net that keeps the shapes of its passes."""

    def __init__(self, net: Any) -> None:
        self._net, self.shapes = net, []  # type: Any, List[Tuple[int, ...]]

    def __call__(self, inputs: np.ndarray) -> Any:
        self.shapes.append(inputs.shape)
        return self._net(inputs)


@pytest.mark.parametrize("options", [ONCE, TWICE, replace(TWICE, flip=True), replace(TWICE, scales=(1.0, 1.5))])
def test_a_small_person_is_placed_better_and_appears_once(white_box_net: Any, options: EstimateOptions) -> None:
    expected = person(325, 199.5, 100)

    def error(chosen: EstimateOptions) -> float:
        (estimate,) = Estimator(white_box_net).estimate([_image(SMALL)], chosen)
        assert len(estimate.people) == 1
        return float(np.abs(estimate.people.keypoints[0, :, :2] - expected).max())

    assert error(options) < max(1.5, error(replace(options, refine="off")))


def test_crops_of_one_image_share_passes_of_few_shapes(white_box_net: Any) -> None:
    net = _Watched(white_box_net)
    people = _people((100, 50, 60, 0.9), (300, 80, 80, 0.8), (500, 20, 70, 0.7))
    crops = plan_crops(people, 480, 640, 0.5, 240)
    assert [crop.person for crop in crops] == [0, 1, 2]
    estimator = Estimator(net, at_once=4)
    estimator.estimate([crop.cut(_image(SMALL), 0) for crop in crops], replace(ONCE, refine="off", max_width=240))
    assert len(net.shapes) == 1
    assert net.shapes[0][0] == 3


def test_who_is_large_is_not_looked_at_again(white_box_net: Any) -> None:
    net = _Watched(white_box_net)
    Estimator(net).estimate([_image((200, 20, 420, 459))], ONCE)
    assert len(net.shapes) == 1


def test_what_crops_cost_is_counted(white_box_net: Any) -> None:
    net = _Watched(white_box_net)
    (estimate,) = Estimator(net).estimate([_image(SMALL)], replace(TWICE, flip=True))
    spent = [shape[0] * shape[1] * shape[2] for shape in net.shapes]
    assert len(spent) == 6
    assert estimate.crop_pixels == sum(spent[2:])


def test_without_pixels_left_the_first_look_stands_and_a_warning_says_so(white_box_net: Any) -> None:
    estimator = Estimator(white_box_net)
    (plain,) = estimator.estimate([_image(SMALL)], replace(ONCE, refine="off"))
    (bounded,) = estimator.estimate([_image(SMALL)], ONCE, most_pixels=1000)
    assert np.array_equal(plain.people.keypoints, bounded.people.keypoints, equal_nan=True)
    assert bounded.warnings == ("1 people were not looked at again: there are too many for one job",)


def test_no_more_than_so_many_people_are_looked_at_again(white_box_net: Any) -> None:
    def crowd(inputs: np.ndarray) -> Any:
        if inputs.shape[2] < 1000:
            return white_box_net(inputs)
        from tests.support.synthetic import draw_maps

        found = [person(3 + 5 * (i % 40), 2 + 14 * (i // 40), 8) for i in range(80)]
        heat, paf = draw_maps(found, inputs.shape[1] // 8, inputs.shape[2] // 8)
        return heat[None], paf[None]

    net = _Watched(crowd)
    (estimate,) = Estimator(net).estimate([np.zeros((240, 1640, 3), np.uint8)], ONCE)
    assert len(net.shapes) == 1 + MOST_CROPS
    assert any("were not looked at again" in warning for warning in estimate.warnings)
    assert len(estimate.people) > MOST_CROPS


def test_a_reduced_image_cannot_be_looked_at_again(white_box_net: Any) -> None:
    with pytest.raises(ValueError, match="reduced"):
        Estimator(white_box_net).estimate([_image(SMALL)], ONCE, 2)


def test_people_below_the_least_score_are_left_out_after_the_second_look(white_box_net: Any) -> None:
    (estimate,) = Estimator(white_box_net).estimate([_image(SMALL)], replace(ONCE, min_score=1.0))
    assert len(estimate.people) == 0


def test_nobody_is_lost_whom_the_second_look_does_not_find() -> None:
    first = _people((100, 50, 60, 0.5))
    crops = [Crop(0, 50, 20, 100, 150)]
    kept = combine(first, crops, [People.nobody(18)], SIGMAS)
    assert np.array_equal(kept.keypoints, first.keypoints)
    assert kept.scores.tolist() == [0.5]


def test_joints_found_again_replace_the_first_and_the_others_stay() -> None:
    first, second = _people((100, 50, 60, 0.5)), _people((101, 51, 60, 0.8))
    second.keypoints[0, 4] = (np.nan, np.nan, 0)
    both = combine(first, [Crop(0, 50, 20, 100, 150)], [second], SIGMAS)
    assert both.scores.tolist() == [np.float32(0.8)]
    assert np.array_equal(both.keypoints[0, 4], first.keypoints[0, 4])
    assert np.array_equal(both.keypoints[0, 0], second.keypoints[0, 0])


@pytest.mark.parametrize(("score", "count"), [(0.6, 2), (0.15, 1)])
def test_others_in_a_crop_are_new_people_if_scored_well(score: float, count: int) -> None:
    found = _people((100, 50, 60, 0.8), (180, 50, 60, score))
    assert len(combine(_people((100, 50, 60, 0.5)), [Crop(0, 50, 20, 200, 150)], [found], SIGMAS)) == count


def test_two_crops_that_show_the_same_people_give_each_once() -> None:
    first = _people((100, 50, 60, 0.5), (140, 50, 60, 0.4))
    both = _people((100, 50, 60, 0.8), (140, 50, 60, 0.7))
    crops = [Crop(0, 50, 20, 200, 150), Crop(1, 60, 20, 200, 150)]
    assert combine(first, crops, [both, both], SIGMAS).scores.tolist() == [np.float32(0.8), np.float32(0.7)]


def test_of_two_who_are_similar_the_better_scored_stays() -> None:
    kept = without_doubles(_people((100, 50, 60, 0.5), (101, 50, 60, 0.9), (300, 50, 60, 0.3)), SIGMAS)
    assert kept.scores.tolist() == [np.float32(0.9), np.float32(0.3)]
    assert len(without_doubles(People.nobody(18), SIGMAS)) == 0


@pytest.mark.parametrize("at", [(2, 2), (630, 470), (2, 470), (320, 240)])
def test_a_crop_lies_in_the_image_if_it_can_and_is_padded_where_it_cannot(at: Tuple[int, int]) -> None:
    image = np.full((480, 640, 3), 9, np.uint8)
    joints = np.full((1, 18, 3), (np.nan, np.nan, 0))
    joints[0, :2] = [(*at, 0.9), (at[0] + 5, at[1] + 8, 0.9)]
    (crop,) = plan_crops(People(joints, np.array([0.9])), 480, 640, 0.5, 240)
    assert (crop.cut(image, 7) == 9).all()
    assert crop.cut(image, 7).shape == (crop.height, crop.width, 3)
    wide = Crop(0, -10, -20, 700, 500).cut(image, 7)
    assert wide.shape == (500, 700, 3)
    assert (wide[:20] == 7).all()
    assert (wide[:, :10] == 7).all()
    assert (wide[20:, 10:650] == 9).all()
