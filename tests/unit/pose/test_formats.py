"""People in OpenPose's and COCO's JSON."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any, Dict

import numpy as np
import pytest

from worker.pose.formats import coco_results, maps_archive, openpose_json
from worker.pose.geometry import plan
from worker.pose.people import People

PERSON_KEYS = [
    "person_id",
    "pose_keypoints_2d",
    "face_keypoints_2d",
    "hand_left_keypoints_2d",
    "hand_right_keypoints_2d",
    "pose_keypoints_3d",
    "face_keypoints_3d",
    "hand_left_keypoints_3d",
    "hand_right_keypoints_3d",
]


@pytest.fixture
def people() -> People:
    """One person in an image of 200×100: joint i at (10 i, 5 i), but the left ear was not found."""
    keypoints = np.zeros((1, 18, 3))
    keypoints[0, :, 0] = np.arange(18) * 10
    keypoints[0, :, 1] = np.arange(18) * 5
    keypoints[0, :, 2] = 0.5 + np.arange(18) / 100
    keypoints[0, 17] = (np.nan, np.nan, 0)
    return People(keypoints, np.array([0.75]))


def _joints(document: Dict[str, Any]) -> np.ndarray:
    return np.array(document["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)


def test_openpose_document_is_that_of_version_1_3(people: People) -> None:
    document = openpose_json(people)
    assert list(document) == ["version", "people"]
    assert document["version"] == 1.3
    assert list(document["people"][0]) == PERSON_KEYS
    assert document["people"][0]["person_id"] == [-1]
    assert all(document["people"][0][key] == [] for key in PERSON_KEYS[2:])
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_coco_18_order(people: People) -> None:
    joints = _joints(openpose_json(people))
    assert joints.shape == (18, 3)
    assert joints[4].tolist() == [40, 20, 0.54]
    assert joints[0].tolist() == [0, 0, 0.5]  # at the first pixel, and found
    assert joints[17].tolist() == [0, 0, 0]  # not found


def test_body_25_order_has_a_mid_hip_and_no_feet(people: People) -> None:
    joints = _joints(openpose_json(people, order="BODY_25"))
    assert joints.shape == (25, 3)
    assert joints[8].tolist() == [(80 + 110) / 2, (40 + 55) / 2, 0.58]  # between the hips, as sure as the less sure
    assert joints[[9, 12, 15, 16, 17], 0].tolist() == [80, 110, 140, 150, 160]  # hips, eyes, right ear
    assert (joints[19:] == 0).all()


def test_body_25_without_a_hip_has_no_mid_hip(people: People) -> None:
    keypoints = people.keypoints.copy()
    keypoints[0, 11] = (np.nan, np.nan, 0)
    assert _joints(openpose_json(People(keypoints, people.scores), order="BODY_25"))[8].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("scale", "expected"), [(0, [40, 20]), (3, [40 / 199, 20 / 99]), (4, [80 / 199 - 1, 40 / 99 - 1])]
)
def test_keypoint_scale(people: People, scale: int, expected: list) -> None:
    joints = _joints(openpose_json(people, keypoint_scale=scale, size=(200, 100)))
    assert joints[4, :2] == pytest.approx(expected, rel=1e-5)
    assert joints[17].tolist() == [0, 0, 0]


def test_the_last_pixel_is_one_and_an_image_of_one_pixel_does_no_harm(people: People) -> None:
    keypoints = people.keypoints.copy()
    keypoints[0, 4, :2] = (199, 99)
    corner = People(keypoints, people.scores)
    assert _joints(openpose_json(corner, keypoint_scale=3, size=(200, 100)))[4, :2].tolist() == [1, 1]
    assert _joints(openpose_json(corner, keypoint_scale=4, size=(200, 100)))[4, :2].tolist() == [1, 1]
    assert np.isfinite(_joints(openpose_json(corner, keypoint_scale=4, size=(1, 1)))).all()


def test_numbers_have_six_significant_digits(people: People) -> None:
    keypoints = people.keypoints.copy()
    keypoints[0, 4] = (1234.56789, 0.123456789, 0.98765432)
    assert _joints(openpose_json(People(keypoints, people.scores)))[4].tolist() == [1234.57, 0.123457, 0.987654]


def test_unknown_orders_and_scales_are_refused(people: People) -> None:
    with pytest.raises(ValueError, match="'BODY_18' is not"):
        openpose_json(people, order="BODY_18")
    with pytest.raises(ValueError, match="keypoint_scale 2 is not"):
        openpose_json(people, keypoint_scale=2)


def test_nobody_is_an_empty_list() -> None:
    assert openpose_json(People.nobody(18)) == {"version": 1.3, "people": []}
    assert coco_results(People.nobody(18), 7) == []


def test_coco_results_are_accepted_by_pycocotools(people: People) -> None:
    """A person evaluated against the same person as ground truth is found without fault."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    (entry,) = coco_results(people, 42)
    joints = np.array(entry["keypoints"]).reshape(17, 3)
    assert joints[[0, 1, 2, 5, 6, 15, 16], 0].tolist() == [0, 150, 140, 50, 20, 130, 100]  # left before right
    assert entry["category_id"] == 1
    truth = joints.copy()
    truth[:, 2] = np.where(joints[:, 2] > 0, 2, 0)
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = {
            "info": {},
            "images": [{"id": 42, "width": 200, "height": 100}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                {
                    "id": 1,
                    "image_id": 42,
                    "category_id": 1,
                    "keypoints": truth.ravel().tolist(),
                    "num_keypoints": 16,
                    "bbox": [0, 0, 200, 100],
                    "area": 10_000,
                    "iscrowd": 0,
                }
            ],
        }
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(json.loads(json.dumps([entry]))), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_maps_keep_their_place_in_the_image() -> None:
    geometry = plan(480, 640, target_height=368, stride=8, offset=(4.0, 2.0))
    random = np.random.default_rng(0)
    heatmaps, pafs = random.random((19, 46, 62), np.float32), random.random((38, 46, 62), np.float32)
    data = maps_archive(heatmaps, pafs, geometry)
    assert maps_archive(heatmaps, pafs, geometry) == data
    with np.load(io.BytesIO(data)) as kept:
        assert kept["heatmaps"].dtype == kept["pafs"].dtype == np.float16
        assert np.allclose(kept["heatmaps"], heatmaps, atol=1e-3)
        assert np.allclose(kept["pafs"], pafs, atol=1e-3)
        places = np.array([[30.0, 20.0], [5.5, 7.25]])
        assert kept["origin"] + kept["cell"] * places == pytest.approx(geometry.to_source(places), abs=1e-3)
