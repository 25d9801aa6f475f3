"""A film's people in other tools' formats: numbers, joints that were not found, ids, and films without anybody."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from typing import List, Optional

import numpy as np
import pytest

from worker.errors import InvalidRequest
from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import COCO_18
from worker.video.export import coco_json, csv_table, numpy_archive, openpose_zip
from worker.video.lines import FrameFound


def frame(number: int, count: int, ids: Optional[List[int]] = None) -> FrameFound:
    """A frame at 10 a second with `count` people, whose wrist (4) was not found."""
    keypoints = np.full((count, 18, 3), 0.5, np.float32)
    keypoints[..., :2] = np.arange(18)[:, None] + 100 * np.arange(count)[:, None, None] + number
    keypoints[:, 4] = np.nan, np.nan, 0
    people = People(keypoints=keypoints, scores=np.linspace(0.5, 0.9, count, dtype=np.float32), parts={})
    return FrameFound(number, number / 10, people, None if ids is None else np.array(ids, np.int64))


TRACKED = [frame(5, 2, [7, 3]), frame(6, 0, []), frame(7, 1, [3])]
UNTRACKED = [frame(0, 1)]


def _archive(frames: List[FrameFound], **how: object) -> zipfile.ZipFile:
    file = io.BytesIO()
    openpose_zip(frames, COCO_18, file, stem="street", **how)  # type: ignore[arg-type]
    return zipfile.ZipFile(file)


def test_openpose_has_a_file_for_each_frame() -> None:
    with _archive(TRACKED) as archive:
        assert archive.namelist() == [f"street_{number:012}_keypoints.json" for number in (5, 6, 7)]
        first, nobody, _ = (json.loads(archive.read(name)) for name in archive.namelist())
    assert [person["person_id"] for person in first["people"]] == [[7], [3]]
    assert first["people"][1]["pose_keypoints_2d"][:3] == [105.0, 105.0, 0.5]
    assert first["people"][1]["pose_keypoints_2d"][12:15] == [0.0, 0.0, 0.0]
    assert nobody["people"] == []


def test_openpose_in_another_order_and_scale() -> None:
    with _archive(UNTRACKED, order="BODY_25", keypoint_scale=3, size=(101, 201)) as archive:
        (person,) = json.loads(archive.read(archive.namelist()[0]))["people"]
    assert person["person_id"] == [-1]
    assert len(person["pose_keypoints_2d"]) == 75
    assert person["pose_keypoints_2d"][3:6] == [0.01, 0.005, 0.5]
    with pytest.raises(ValueError, match="order"):
        _archive(UNTRACKED, order="BODY_26")


def test_coco() -> None:
    file = io.BytesIO()
    coco_json(TRACKED, COCO_18, file)
    entries = json.loads(file.getvalue())
    assert [(entry["image_id"], entry["track_id"]) for entry in entries] == [(5, 7), (5, 3), (7, 3)]
    assert len(entries[0]["keypoints"]) == 51
    file = io.BytesIO()
    coco_json(UNTRACKED, COCO_18, file)
    assert "track_id" not in json.loads(file.getvalue())[0]


def test_coco_of_a_skeleton_without_its_keypoints_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        coco_json(UNTRACKED, Skeleton(name="star", keypoints=("a", "b"), limbs=()), io.BytesIO())


def test_a_table() -> None:
    file = io.BytesIO()
    csv_table([*TRACKED, *UNTRACKED], COCO_18, file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue().decode())))
    assert [(row["frame"], row["time_s"], row["id"]) for row in rows] == [
        ("5", "0.5", "7"),
        ("5", "0.5", "3"),
        ("7", "0.7", "3"),
        ("0", "0.0", ""),
    ]
    assert (rows[1]["nose_x"], rows[1]["right_wrist_x"], rows[1]["right_wrist_c"]) == ("105.0", "", "0")


def test_arrays() -> None:
    file = io.BytesIO()
    numpy_archive([*TRACKED, *UNTRACKED], COCO_18, file)
    file.seek(0)
    with np.load(file) as arrays:
        assert arrays["frame"].tolist() == [5, 6, 7, 0]
        assert arrays["time_s"].tolist() == [0.5, 0.6, 0.7, 0.0]
        assert arrays["person_frame"].tolist() == [5, 5, 7, 0]
        assert arrays["id"].tolist() == [7, 3, 3, -1]
        assert arrays["keypoints"].dtype == np.float32
        assert arrays["keypoints"][1, 0].tolist() == [105.0, 105.0, 0.5]
        assert np.isnan(arrays["keypoints"][0, 4, 0])
        assert arrays["names"].tolist() == list(COCO_18.keypoints)


def test_a_film_without_a_frame() -> None:
    with _archive([]) as archive:
        assert archive.namelist() == []
    coco, table, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO()
    coco_json([], COCO_18, coco)
    csv_table([], COCO_18, table)
    numpy_archive([], COCO_18, arrays)
    assert json.loads(coco.getvalue()) == []
    assert table.getvalue().count(b"\n") == 1
    arrays.seek(0)
    with np.load(arrays) as found:
        assert found["keypoints"].shape == (0, 18, 3)


def test_the_same_people_give_the_same_bytes() -> None:
    made = []
    for _ in range(2):
        file = io.BytesIO()
        openpose_zip(TRACKED, COCO_18, file, stem="street")
        made.append(file.getvalue())
    assert made[0] == made[1]
