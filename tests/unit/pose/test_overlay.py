"""People → a picture."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.synthetic import person
from worker.pose.overlay import draw_overlay
from worker.pose.people import People
from worker.pose.skeletons import COCO_18


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)


@pytest.fixture
def people() -> People:
    joints = np.column_stack([person(300.0, 40.0, 400), np.full(18, 0.8)])
    return People(joints[None], np.array([0.9]))


def test_draws_on_a_copy(image: np.ndarray, people: People) -> None:
    before = image.copy()
    drawn = draw_overlay(image, people)
    assert np.array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert not np.array_equal(drawn, image)


def test_nobody_is_the_same_picture_but_not_the_same_array(image: np.ndarray) -> None:
    drawn = draw_overlay(image, People.nobody(18))
    assert np.array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_each_joint_is_marked_in_its_colour_and_the_rest_is_left_alone(image: np.ndarray, people: People) -> None:
    drawn = draw_overlay(image, people, alpha=1.0)
    for joint, (x, y, _) in enumerate(people.keypoints[0]):
        if joint < 14:  # eyes and ears lie upon each other
            assert drawn[round(y), round(x)] == pytest.approx(COCO_18.colors[joint], abs=2)
    assert np.array_equal(drawn[:, :150], image[:, :150])


def test_alpha_lets_the_image_through(image: np.ndarray, people: People) -> None:
    x, y = np.round(people.keypoints[0, 9, :2]).astype(int)
    half = draw_overlay(image, people, alpha=0.5)[y, x].astype(float)
    assert half == pytest.approx((image[y, x] + np.array(COCO_18.colors[9], float)) / 2, abs=2)
    assert np.abs(draw_overlay(image, people, alpha=0.0).astype(float) - image).max() <= 1


def test_missing_and_unsure_joints_are_not_drawn(image: np.ndarray, people: People) -> None:
    keypoints = people.keypoints.copy()
    keypoints[0, 4] = (np.nan, np.nan, 0)
    keypoints[0, 10, 2] = 0.04
    drawn = draw_overlay(image, People(keypoints, people.scores))
    for joint in (4, 10):
        x, y = np.round(people.keypoints[0, joint, :2]).astype(int)
        assert np.array_equal(drawn[y - 2 : y + 3, x - 2 : x + 3], image[y - 2 : y + 3, x - 2 : x + 3])
    nobody = draw_overlay(image, people, render_threshold=0.9)
    assert np.array_equal(nobody, image)


def test_a_joint_at_the_origin_is_drawn(image: np.ndarray) -> None:
    keypoints = np.full((1, 18, 3), (np.nan, np.nan, 0.0))
    keypoints[0, 1] = (0.0, 0.0, 1.0)
    drawn = draw_overlay(image, People(keypoints, np.ones(1)), alpha=1.0)
    assert drawn[0, 0] == pytest.approx(COCO_18.colors[1], abs=2)


def test_joints_outside_the_picture_do_no_harm(image: np.ndarray, people: People) -> None:
    keypoints = people.keypoints + np.array([500, -300, 0], np.float32)
    assert draw_overlay(image, People(keypoints, people.scores)).shape == image.shape


def test_thickness(image: np.ndarray, people: People) -> None:
    thin, thick = (np.count_nonzero(draw_overlay(image, people, thickness=t) != image) for t in (0.5, 2.0))
    assert thick > 2 * thin


def test_backgrounds(image: np.ndarray, people: People) -> None:
    black = draw_overlay(image, people, background="black")
    assert (black[:, :150] == 0).all()
    assert black.any()
    alone = draw_overlay(image, people, background="transparent", alpha=0.5)
    assert alone.shape == (480, 640, 4)
    assert (alone[:, :150, 3] == 0).all()
    x, y = np.round(people.keypoints[0, 9, :2]).astype(int)
    assert alone[y, x] == pytest.approx([*COCO_18.colors[9], 128], abs=2)
    nobody = draw_overlay(image, People.nobody(18), background="transparent")
    assert not nobody.any()


def test_colours_by_person_or_of_ones_own_choice(image: np.ndarray, people: People) -> None:
    other = people.keypoints + np.array([200, 0, 0], np.float32)
    both = People(np.concatenate([people.keypoints, other]), np.array([0.9, 0.8]))
    first, second = (np.round(person[9, :2]).astype(int)[::-1] for person in both.keypoints)
    by_person = draw_overlay(image, both, alpha=1.0, colors="people")
    assert np.abs(by_person[tuple(first)].astype(int) - by_person[tuple(second)]).max() > 60
    assert by_person[tuple(first)] == pytest.approx(by_person[tuple(np.round(both.keypoints[0, 4, 1::-1]).astype(int))])
    red, green = (0, 0, 255), (0, 255, 0)
    chosen = draw_overlay(image, both, alpha=1.0, colors=[red, green])
    assert chosen[tuple(first)] == pytest.approx(red, abs=2)
    assert chosen[tuple(second)] == pytest.approx(green, abs=2)
    one = draw_overlay(image, both, alpha=1.0, colors=[red])
    assert one[tuple(second)] == pytest.approx(red, abs=2)


@pytest.mark.parametrize("background", ["image", "black", "transparent"])
def test_what_is_far_from_everybody_is_as_the_background_has_it(background: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (900, 1200, 3), np.uint8)
    joints = np.column_stack([person(900.0, 500.0, 300), np.full(18, 0.8)])
    drawn = draw_overlay(image, People(joints[None], np.array([0.9])), background=background)
    rest = image if background == "image" else np.zeros((900, 1200, drawn.shape[2]), np.uint8)
    assert np.array_equal(drawn[:450], rest[:450])
    assert np.array_equal(drawn[:, :600], rest[:, :600])
    x, y = np.round(joints[9, :2]).astype(int)
    assert not np.array_equal(drawn[y, x], rest[y, x])
