"""Hands and faces: where they are looked for, how the crops lie, and what becomes of what a net finds in them."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import numpy as np
import pytest

from tests.support.synthetic import person_of
from worker.errors import InvalidRequest
from worker.people import from_people, to_people
from worker.pose.formats import openpose_json
from worker.pose.overlay import draw_overlay
from worker.pose.parts import PartNet, face_box, find_parts, hand_box
from worker.pose.people import People
from worker.pose.skeletons import BODY_25, COCO_18, FACE_70, HAND_21, MPI_15

HEIGHT, WIDTH = 480, 640


def _points(*places: Optional[Tuple[float, float]]) -> np.ndarray:
    return np.array([(np.nan, np.nan, 0) if place is None else (*place, 0.9) for place in places])


def test_a_hand_lies_beyond_the_wrist_and_is_as_large_as_the_forearm() -> None:
    box = hand_box(_points((100, 200), (100, 100), (100, 0)), mirrored=False)
    assert box is not None
    assert (box.left + box.side / 2, box.top + box.side / 2) == pytest.approx((100, 233))
    assert (box.side, box.mirrored) == (pytest.approx(150), False)
    short = hand_box(_points((100, 120), (100, 100), (100, 0)), mirrored=True)  # a forearm that points at the camera
    assert short is not None
    assert (short.side, short.mirrored) == (pytest.approx(135), True)


@pytest.mark.parametrize("lost", range(3))
def test_no_hand_without_the_whole_arm(lost: int) -> None:
    arm = _points((100, 200), (100, 100), (100, 0))
    arm[lost] = (np.nan, np.nan, 0)
    assert hand_box(arm, mirrored=False) is None


NOSE, NECK, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR = (100, 60), (100, 120), (110, 50), (90, 50), (120, 55), (80, 55)


@pytest.mark.parametrize(
    ("head", "middle", "side"),
    [
        # All three ways: (100, 52.5) with 0.85 · (20 + 40 + 60), the eyes with 3 · 20, the ears with 2 · 40.
        ((NOSE, NECK, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR), (100, 52.5), (102 + 60 + 80) / 3),
        # From the side: the mean of nose, eye and ear, with their distances and that of the neck.
        (
            (NOSE, NECK, LEFT_EYE, None, LEFT_EAR, None),
            (110, 55),
            0.85 * (np.hypot(10, 10) + np.hypot(20, 5) + 60),
        ),
        ((None, None, LEFT_EYE, RIGHT_EYE, None, None), (100, 50), 60),
        ((None, NECK, None, None, LEFT_EAR, RIGHT_EAR), (100, 55), 80),
    ],
)
def test_a_face_is_as_large_as_eyes_ears_and_neck_are_apart(head: Any, middle: Any, side: float) -> None:
    box = face_box(_points(*head))
    assert box is not None
    assert (box.left + box.side / 2, box.top + box.side / 2) == pytest.approx(middle)
    assert box.side == pytest.approx(side)


@pytest.mark.parametrize(
    "head", [(None,) * 6, (NOSE, NECK, None, None, None, None), (None, NECK, None, None, LEFT_EAR, None)]
)
def test_no_face_where_too_little_is_seen(head: Any) -> None:
    assert face_box(_points(*head)) is None


class SpotNet:
    """Finds keypoint k of a crop k pixels right of the middle of what is white in it."""

    def __init__(self, keypoints: int) -> None:
        self.keypoints = keypoints
        self.shapes: List[Tuple[int, ...]] = []

    def __call__(self, inputs: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        self.shapes.append(inputs.shape)
        side = inputs.shape[1] // 8
        rows, columns = np.mgrid[0:side, 0:side]
        heatmaps = np.zeros((len(inputs), self.keypoints + 1, side, side), np.float32)
        for one, maps in zip(inputs, heatmaps):
            ys, xs = np.nonzero(one[..., 0] > 127)
            for joint in range(self.keypoints if len(xs) else 0):
                x, y = ((value + 0.5) / 8 - 0.5 for value in (xs.mean() + joint, ys.mean()))
                maps[joint] = 0.8 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2)
        return heatmaps, np.zeros((len(inputs), 0, side, side), np.float32)


def _people(*places: Tuple[float, float], skeleton: Any = COCO_18) -> People:
    keypoints = [
        np.column_stack([person_of(skeleton, x, y, 400.0), np.full(len(skeleton.keypoints), 0.9)]) for x, y in places
    ]
    return People(np.array(keypoints), np.ones(len(places)))


def _image(people: People) -> np.ndarray:
    """A white spot at each wrist, and between the eyes."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for joints in people.keypoints:
        for x, y in (joints[4, :2], joints[7, :2], joints[14:16, :2].mean(0)):
            column, row = round(float(x)), round(float(y))
            image[row - 2 : row + 3, column - 2 : column + 3] = 255
    return image


def test_what_a_net_finds_in_a_crop_lies_where_it_is_in_the_image() -> None:
    people = _people((160, 40), (460, 50))
    hands, faces = SpotNet(21), SpotNet(70)
    nets = {"hands": PartNet(hands, at_once=3), "face": PartNet(faces, side=184)}
    found, warnings = find_parts(_image(people), people, COCO_18, nets, most=99)
    assert warnings == ()
    assert hands.shapes == [(3, 368, 368, 3), (1, 368, 368, 3)]  # all hands of all people, as many at a time as may be
    assert faces.shapes == [(2, 184, 184, 3)]
    for number, joints in enumerate(people.keypoints):
        for part, wrist, elbow, shoulder, way in (("hand_right", 4, 3, 2, 1), ("hand_left", 7, 6, 5, -1)):
            box = hand_box(joints[[wrist, elbow, shoulder]], mirrored=way < 0)
            assert box is not None
            ours = found.parts[part][number]
            # A left hand is mirrored for the net, and so is what it finds.
            expected = joints[wrist, 0] + way * np.arange(21) * box.side / 368
            assert ours[:, 0] == pytest.approx(expected, abs=1.0)
            assert ours[:, 1] == pytest.approx(np.full(21, joints[wrist, 1]), abs=1.0)
            assert ours[:, 2] == pytest.approx(np.full(21, 0.8), abs=0.1)
        assert found.parts["face"][number, 0, :2] == pytest.approx(joints[14:16, :2].mean(0), abs=1.0)
    assert np.array_equal(found.keypoints, people.keypoints)


def test_only_what_is_asked_for_is_looked_for_and_what_is_not_seen_is_not_found() -> None:
    people = _people((160, 40))
    keypoints = people.keypoints.copy()
    keypoints[0, 7] = (np.nan, np.nan, 0)  # no left wrist
    people = People(keypoints, people.scores)
    found, _ = find_parts(np.zeros((HEIGHT, WIDTH, 3), np.uint8), people, COCO_18, {"hands": PartNet(SpotNet(21))}, 99)
    assert set(found.parts) == {"hand_left", "hand_right"}
    assert (found.parts["hand_left"][..., 2] == 0).all()
    assert np.isnan(found.parts["hand_right"][..., 0]).all()  # nothing white: no peak


def test_the_first_people_go_first_where_there_are_too_many() -> None:
    people = _people((120, 40), (320, 50), (520, 40))
    nets = {"hands": PartNet(SpotNet(21)), "face": PartNet(SpotNet(70))}
    found, (warning,) = find_parts(_image(people), people, COCO_18, nets, most=4)
    assert "5 hands and faces were not looked for" in warning
    seen = {part: (joints[..., 2] > 0).any(1).tolist() for part, joints in found.parts.items()}
    assert seen == {
        "hand_left": [True, True, False],
        "hand_right": [True, False, False],
        "face": [True, False, False],
    }


def test_nobody_has_no_hands() -> None:
    net = SpotNet(21)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    found, _ = find_parts(image, People.nobody(18), COCO_18, {"hands": PartNet(net)}, 99)
    assert found.parts["hand_left"].shape == (0, 21, 3)
    assert net.shapes == []


def test_maps_that_are_no_numbers_are_no_hands() -> None:
    def net(inputs: np.ndarray) -> Any:
        return np.full((len(inputs), 22, 46, 46), np.nan, np.float32), np.zeros((len(inputs), 0, 46, 46), np.float32)

    people = _people((160, 40))
    found, _ = find_parts(_image(people), people, COCO_18, {"hands": PartNet(net)}, 99)
    assert not (found.parts["hand_right"][..., 2] > 0).any()


def test_faces_of_a_skeleton_without_a_face_are_refused() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(InvalidRequest, match="The skeleton mpi_15 has no nose, left_eye"):
        find_parts(image, People.nobody(15), MPI_15, {"face": PartNet(SpotNet(70))}, 99)


def _whole(skeleton: Any) -> People:
    """One person with everything: keypoint i of a part at x = 1000 · part + i."""
    body = _people((100, 40), skeleton=skeleton)

    def part(first: float, count: int) -> np.ndarray:
        return np.column_stack([first + np.arange(count), np.arange(count), np.full(count, 0.5)])[None]

    parts = {"hand_left": part(1000, 21), "hand_right": part(2000, 21), "face": part(3000, 70)}
    parts["hand_right"][0, 3] = (np.nan, np.nan, 0)
    return People(body.keypoints, body.scores, parts)


def test_openpose_s_lists_are_filled() -> None:
    (person,) = openpose_json(_whole(BODY_25), BODY_25)["people"]
    assert person["hand_left_keypoints_2d"][:6] == [1000, 0, 0.5, 1001, 1, 0.5]
    assert person["hand_right_keypoints_2d"][6:12] == [2002, 2, 0.5, 0, 0, 0]
    lengths = {key: len(numbers) for key, numbers in person.items() if numbers and key != "person_id"}
    assert lengths == {
        "pose_keypoints_2d": 75,
        "face_keypoints_2d": 210,
        "hand_left_keypoints_2d": 63,
        "hand_right_keypoints_2d": 63,
    }


def test_the_133_points_of_a_whole_body() -> None:
    people = _whole(BODY_25)
    (person,) = openpose_json(people, BODY_25, order="COCO-133")["people"]
    points = np.reshape(person["pose_keypoints_2d"], (133, 3))
    assert points[0] == pytest.approx(people.keypoints[0, 0], abs=0.01)  # nose
    assert points[17] == pytest.approx(people.keypoints[0, 19], abs=0.01)  # left big toe
    assert points[23:91, 0].tolist() == list(range(3000, 3068))  # the face, without pupils
    assert points[91:112, 0].tolist() == list(range(1000, 1021))  # left hand
    assert points[112:115, 0].tolist() == [2000, 2001, 2002]
    assert points[115].tolist() == [0, 0, 0]
    (person,) = openpose_json(_people((100, 40)), COCO_18, order="COCO-133")["people"]  # neither feet nor hands
    assert (np.reshape(person["pose_keypoints_2d"], (133, 3))[:, 2] > 0).sum() == 17


def test_hands_and_faces_survive_a_message_and_are_not_there_if_nobody_asked() -> None:
    people = _whole(BODY_25)
    (person,) = from_people(people)
    assert person.model_dump()["hand_right"][3] is None
    back = to_people([person], BODY_25)
    for part, joints in people.parts.items():
        assert back.parts[part] == pytest.approx(joints, abs=0.01, nan_ok=True)
    (plain,) = from_people(_people((100, 40)))
    assert set(plain.model_dump()) == {"score", "keypoints"}
    assert to_people([plain]).parts == {}


def test_shapes_are_checked_and_the_best_keep_their_parts() -> None:
    with pytest.raises(ValueError, match=r"face: expected \(1, K, 3\), got \(2, 70, 3\)"):
        People(np.zeros((1, 18, 3)), np.ones(1), {"face": np.zeros((2, 70, 3))})
    assert People(np.zeros((2, 18, 3)), np.ones(2), {"face": np.zeros((2, 70, 3))}).best(1).parts["face"].shape[0] == 1


def test_hands_and_faces_are_drawn() -> None:
    people = _people((100, 40))
    hand = np.column_stack([np.linspace(300, 400, 21), np.full(21, 300.0), np.full(21, 0.9)])[None]
    face = np.column_stack([np.linspace(300, 400, 70), np.full(70, 100.0), np.full(70, 0.9)])[None]
    whole = People(people.keypoints, people.scores, {"hand_left": hand, "face": face})
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    plain, drawn = (draw_overlay(image, one, alpha=1.0) for one in (people, whole))
    assert (drawn[300, 300:401].max(1) > 100).all()
    assert drawn[100, 350].tolist() == list(FACE_70.colors[35])
    assert not plain[300, 300:401].any()
    assert len(HAND_21.drawn) == 20
