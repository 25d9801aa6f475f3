"""Skeletons as data: the known ones, one that is made up, those with a fault; people of each are recovered exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List

import numpy as np
import pytest

from tests.support.reading_net import STAR, paint
from tests.support.synthetic import draw_maps, person_of, same_people
from worker.errors import InvalidRequest, ModelError
from worker.pose import association
from worker.pose.decoder import decode
from worker.pose.estimator import EstimateOptions, Estimator
from worker.pose.formats import coco_results, csv_header, csv_rows, openpose_json
from worker.pose.geometry import Geometry
from worker.pose.overlay import draw_overlay
from worker.pose.peaks import find_peaks
from worker.pose.people import People
from worker.pose.skeleton import Skeleton, as_skeleton
from worker.pose.skeletons import BODY_25, COCO_18, FACE_70, HAND_21, MPI_15, SKELETONS, skeleton_of

HEIGHT, WIDTH = 60, 80
STARS = as_skeleton(STAR)
OF_PEOPLE = [COCO_18, BODY_25, MPI_15, STARS]


def _crowd(skeleton: Skeleton) -> List[np.ndarray]:
    """Three people, of whom one is not whole."""
    people = [person_of(skeleton, x, y, size) for x, y, size in ((14.3, 6.2, 40), (39.6, 9.4, 36), (64.8, 18.7, 30))]
    people[1][4] = np.nan  # a wrist, or what else is a limb's end
    return people


@pytest.mark.parametrize("skeleton", OF_PEOPLE, ids=lambda one: one.name)
@pytest.mark.parametrize("flip", [False, True])
def test_people_of_each_skeleton_are_recovered_exactly(skeleton: Skeleton, flip: bool) -> None:
    """From an image that holds its maps; the mirrored image holds the mirrored maps, left and right changed."""
    people = _crowd(skeleton)
    heatmaps, pafs = draw_maps(people, HEIGHT, WIDTH, skeleton)
    turned = [joints[list(skeleton.mirrored)] * (-1, 1) + (WIDTH - 1, 0) for joints in people]
    answers = [(heatmaps, pafs), draw_maps(turned, HEIGHT, WIDTH, skeleton)]

    def net(inputs: np.ndarray) -> Any:
        return tuple(maps[None].copy() for maps in answers[int(inputs[0, 0, 0, 0] == 0)])

    image = np.zeros((HEIGHT * 8, WIDTH * 8, 3), np.uint8)
    image[:, :8] = 1
    options = EstimateOptions(target_height=HEIGHT * 8, flip=flip)
    (found,) = Estimator(net, skeleton=skeleton).estimate([image], options)
    assert same_people(found.people, [joints * 8 + 3.5 for joints in people], tolerance=2.0) == []
    assert found.skeleton is skeleton


@pytest.mark.parametrize("skeleton", OF_PEOPLE, ids=lambda one: one.name)
def test_people_stay_apart_and_are_found_in_the_same_order_every_time(skeleton: Skeleton) -> None:
    people = [person_of(skeleton, 8.2 + 13 * column, 3 + 27 * row, 22) for column in range(5) for row in range(2)]
    maps = draw_maps(people, HEIGHT, WIDTH, skeleton)
    found, warnings = decode(*maps, Geometry(HEIGHT * 8, WIDTH * 8, 1.0, 8), skeleton)
    assert same_people(found, [joints * 8 + 3.5 for joints in people], tolerance=4.0) == []
    assert warnings == ()
    again, _ = decode(*maps, Geometry(HEIGHT * 8, WIDTH * 8, 1.0, 8), skeleton)
    assert np.array_equal(found.keypoints, again.keypoints)


def test_nothing_is_compiled_anew_for_another_skeleton() -> None:
    counts = []
    for skeleton in OF_PEOPLE:
        decode(*draw_maps(_crowd(skeleton), HEIGHT, WIDTH, skeleton), Geometry(HEIGHT * 8, WIDTH * 8, 1.0, 8), skeleton)
        counts.append(sum(len(one.signatures) for one in (find_peaks, association._candidates)))
    assert len(set(counts)) == 1


def test_every_limb_has_two_fields_of_its_own_and_every_field_a_limb() -> None:
    channels = {one.name: (len(one.keypoints), len(one.limbs), one.paf_channels) for one in SKELETONS.values()}
    assert channels == {
        "coco_18": (18, 19, 38),
        "body_25": (25, 26, 52),
        "mpi_15": (15, 14, 28),
        "hand_21": (21, 20, 0),
        "face_70": (70, 63, 0),
    }
    for one in SKELETONS.values():
        assert sorted(one.limb_table[:, 2].tolist()) == list(range(0, one.paf_channels, 2))


def test_body_25_is_openpose_s() -> None:
    ends = "1-8 1-2 1-5 2-3 3-4 5-6 6-7 8-9 9-10 10-11 8-12 12-13 13-14 1-0 0-15 15-17 0-16 16-18 2-17 5-18 14-19 "
    ends += "19-20 14-21 11-22 22-23 11-24"
    firsts = "0 14 22 16 18 24 26 6 2 4 8 10 12 30 32 36 34 38 20 28 40 42 44 46 48 50"
    assert " ".join(f"{start}-{end}" for start, end, _, _ in BODY_25.limb_table.tolist()) == ends
    assert " ".join(str(row[2]) for row in BODY_25.limb_table.tolist()) == firsts
    assert BODY_25.keypoints[8] == "mid_hip"
    assert BODY_25.keypoints[19:22] == ("left_big_toe", "left_small_toe", "left_heel")
    assert [name for name in BODY_25.keypoints if name in COCO_18.keypoints] == list(COCO_18.keypoints)


@pytest.mark.parametrize("skeleton", [*OF_PEOPLE, HAND_21, FACE_70], ids=lambda one: one.name)
def test_any_skeleton_is_drawn(skeleton: Skeleton) -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(20, 180, (1, len(skeleton.keypoints), 2))
    keypoints = np.dstack([places, np.full(places.shape[:2], 0.9)])
    drawn = draw_overlay(np.zeros((200, 200, 3), np.uint8), People(keypoints, np.ones(1)), skeleton=skeleton, alpha=1.0)
    for joint, (x, y, _) in enumerate(keypoints[0]):
        assert drawn[round(y), round(x)].any(), joint


def _star(**changes: Any) -> Dict[str, Any]:
    return {**STAR, **changes}


@pytest.mark.parametrize(
    ("stated", "channels", "words"),
    [
        ("coco_19", (19, 38), "has the skeleton 'coco_19', but there are coco_18, body_25, mpi_15, hand_21, face_70"),
        ("BODY_25", (19, 38), "19 channels of heatmaps and 38 of PAFs, but its skeleton body_25 asks for 26 and 52"),
        (STAR, (6, 10), "6 channels of heatmaps and 10 of PAFs, but its skeleton star asks for 6 and 8"),
        ({}, (6, 8), "a skeleton of its own with a fault (name: field required)"),
        ([1], (6, 8), "a skeleton of its own with a fault"),
        (_star(keypoints=[]), (6, 8), "keypoints: "),
        (_star(keypoints=["a"] * 5), (6, 8), "two keypoints have the same name"),
        (_star(keypoints=["<b>", *"abcd"]), (6, 8), "keypoints.0: "),
        (_star(colors=[[1, 2, 3]]), (6, 8), "there are 1 colors for 5 keypoints"),
        (_star(sigmas=[0.1]), (6, 8), "there are 1 sigmas for 5 keypoints"),
        (_star(mirror_pairs=[[1, 7]]), (6, 8), "keypoint 7 is not one of the 5"),
        (_star(mirror_pairs=[[1, 2], [2, 3]]), (6, 8), "a keypoint has two mirror images"),
        (_star(mirror_pairs=[[1, 3], [0, 2]]), (6, 8), "a limb's mirror image is no limb"),
        (_star(limbs=[{"start": 0, "end": 5, "paf": 0}]), (6, 2), "keypoint 5 is not one of the 5"),
        (_star(limbs=[{"start": 0, "end": 0, "paf": 0}]), (6, 2), "the same keypoint at both ends"),
        (
            _star(limbs=[{"start": 0, "end": 3, "paf": 0}, {"start": 0, "end": 4, "paf": 1}]),
            (6, 4),
            "share a PAF channel",
        ),
        (_star(limb=1), (6, 8), "limb: "),
    ],
)
def test_a_skeleton_with_a_fault_is_refused_in_one_sentence(stated: Any, channels: Any, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        skeleton_of("mine", stated, channels)
    assert words in str(caught.value)
    assert str(caught.value).startswith("The net 'mine' ")
    assert "\n" not in str(caught.value)


def test_names_as_they_were_written_before_are_understood() -> None:
    assert skeleton_of("old", "COCO-18", (19, 38)) is COCO_18


def test_one_that_is_a_limb_between_two_sides_is_its_own_mirror_image() -> None:
    hips = as_skeleton(
        {"name": "hips", "keypoints": ["left_hip", "right_hip"], "limbs": [{"start": 0, "end": 1, "paf": 0}]}
    )
    assert hips.mirrored_fields == {0: (0, -1)}


def _some(skeleton: Skeleton) -> People:
    keypoints = np.arange(len(skeleton.keypoints) * 3, dtype=float).reshape(1, -1, 3)
    keypoints[..., 2] = 0.5
    return People(keypoints, np.array([0.75]))


@pytest.mark.parametrize("skeleton", OF_PEOPLE, ids=lambda one: one.name)
def test_openpose_files_are_in_the_skeleton_s_own_order(skeleton: Skeleton) -> None:
    (person,) = openpose_json(_some(skeleton), skeleton)["people"]
    assert person["pose_keypoints_2d"] == _some(skeleton).keypoints.ravel().tolist()


def test_feet_are_left_out_of_coco_18_and_stay_in_body_25() -> None:
    (person,) = openpose_json(_some(BODY_25), BODY_25, order="COCO-18")["people"]
    assert person["pose_keypoints_2d"][::3] == [3.0 * i for i in range(25) if i != 8 and i < 19]
    (person,) = openpose_json(_some(MPI_15), MPI_15, order="BODY_25")["people"]
    assert np.reshape(person["pose_keypoints_2d"], (25, 3))[[0, 1, 8], 2].tolist() == [0, 0.5, 0.5]


def test_coco_results_need_all_17() -> None:
    (entry,) = coco_results(_some(BODY_25), 7, BODY_25)
    assert entry["keypoints"][:6] == [0, 1, 0.5, 48, 49, 0.5]  # nose, left eye
    with pytest.raises(
        InvalidRequest, match="The skeleton mpi_15 has no nose, left_eye, right_eye, left_ear, right_ear"
    ):
        coco_results(_some(MPI_15), 7, MPI_15)


def test_a_table_has_a_row_for_each_person_and_columns_by_name() -> None:
    people = _some(STARS)
    keypoints = people.keypoints.copy()
    keypoints[0, 1] = (np.nan, np.nan, 0)
    assert csv_header(STARS)[:9] == [
        *("image", "person", "score", "middle_x", "middle_y", "middle_c"),
        *("left_point_x", "left_point_y", "left_point_c"),
    ]
    (row,) = csv_rows(People(keypoints, people.scores), "a.jpg")
    assert row[:9] == ["a.jpg", 1, 0.75, 0.0, 1.0, 0.5, "", "", 0]
    assert len(row) == len(csv_header(STARS)) == 18


@pytest.mark.parametrize("parts", [1, 2, 3, 8, 18])
def test_how_few_keypoints_are_a_person(parts: int) -> None:
    skeleton = replace(STARS, keypoints=tuple(f"p{i}" for i in range(parts)), limbs=(), colors=(), sigmas=())
    assert skeleton.least_parts == {1: 2, 2: 2, 3: 2, 8: 4, 18: 4}[parts]


def test_a_painted_image_is_read_back(tmp_path: Any) -> None:
    from tests.support.reading_net import write_reading_net
    from worker.engine import load

    heatmaps, pafs = draw_maps(_crowd(STARS), HEIGHT, WIDTH, STARS)
    net = load(write_reading_net(tmp_path / "star", STARS, STAR))
    read = net(paint(heatmaps, pafs)[None])
    assert read[0][0] == pytest.approx(heatmaps, abs=0.003)
    assert read[1][0] == pytest.approx(pafs, abs=0.003)
