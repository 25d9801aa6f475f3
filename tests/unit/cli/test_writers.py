"""The files that a batch leaves: their names, their form, and that they are whole or not there."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from worker.cli.writers import CocoFile, CsvFile, Done, OpenPoseFiles
from worker.contract import Image, Model, Overlay, Person, Result
from worker.errors import ImageNotFound, InvalidRequest


def _done(path: str, people: int = 1, media_type: str = "image/jpeg", maps: Any = None) -> Done:
    joints = [(10.0 * joint, 5.0 * joint, 0.5) for joint in range(18)]
    result = Result(
        job_id="j",
        image=Image(path=path, width=201, height=101, format="JPEG"),
        model=Model(name="net", sha256="0"),
        people=[{"score": 0.9, "keypoints": joints}] * people,
        overlay=Overlay(url="redis:///x", media_type=media_type, bytes=3, sha256="0", expires_at=None),
        timings_ms={},
        worker="cpu0@here",
        device="cpu",
        attempt=1,
    )
    return Done(path, Path(path).stem, result, b"pic", maps)


def test_openpose_files_as_openpose_calls_them(tmp_path: Path) -> None:
    files = OpenPoseFiles(tmp_path / "out", order="BODY_25", keypoint_scale=3)
    files.add(_done("/data/a.jpg"))
    files.add(_done("/data/b.png", media_type="image/png", maps=b"zip"))
    files.add(Done("/data/c.jpg", "c", ImageNotFound("no")))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_keypoints.json",
        "a_rendered.jpg",
        "b_keypoints.json",
        "b_maps.npz",
        "b_rendered.png",
    ]
    (person,) = json.loads((tmp_path / "out" / "a_keypoints.json").read_text())["people"]
    assert person["pose_keypoints_2d"][12:15] == [0.2, 0.2, 0.5]  # joint 4: (40, 20) of 201×101
    assert len(person["pose_keypoints_2d"]) == 75


def test_coco_results_of_all_images_are_accepted_by_pycocotools(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    path = tmp_path / "deep" / "results.json"
    results = CocoFile(path)
    results.add(_done("/data/000000000139.jpg", people=2))
    results.add(_done("/data/COCO_val2014_000000000042.jpg"))
    results.add(_done("/data/7.jpg", people=0))
    results.add(Done("/data/9.jpg", "9", ImageNotFound("no")))
    with pytest.raises(InvalidRequest, match="ends in no number"):
        results.add(_done("/data/street.jpg"))
    assert not path.exists()
    results.close()
    assert [path.name for path in path.parent.iterdir()] == ["results.json"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"info": {}, "images": [{"id": id} for id in (7, 42, 139)], "categories": [], "annotations": []}
        truth.createIndex()
        found = truth.loadRes(str(path))
    assert sorted(entry["image_id"] for entry in found.dataset["annotations"]) == [42, 139, 139]
    assert all(len(entry["keypoints"]) == 51 for entry in found.dataset["annotations"])


def test_nobody_at_all_is_an_empty_list(tmp_path: Path) -> None:
    results = CocoFile(tmp_path / "results.json")
    results.close()
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_a_table_of_all_images(tmp_path: Path) -> None:
    table = CsvFile(tmp_path / "people.csv")
    table.add(_done("/data/a.jpg", people=2))
    table.add(_done("/data/n\udcffo.jpg", people=0))
    table.add(Done("/data/9.jpg", "9", ImageNotFound("no")))
    other = _done("/data/b.jpg")
    person = {"score": 0.9, "keypoints": [(1.0, 2.0, 0.5)]}
    changes = {"skeleton": "dot", "keypoint_names": ("dot",), "people": [Person.model_validate(person)]}
    with pytest.raises(InvalidRequest, match="its net has another skeleton"):
        table.add(replace(other, outcome=other.outcome.model_copy(update=changes)))
    assert not (tmp_path / "people.csv").exists()
    table.close()
    rows = list(csv.DictReader((tmp_path / "people.csv").read_text().splitlines()))
    assert [(row["image"], row["person"], row["score"]) for row in rows] == [
        ("/data/a.jpg", "1", "0.9"),
        ("/data/a.jpg", "2", "0.9"),
    ]
    assert [rows[0][f"right_wrist_{field}"] for field in "xyc"] == ["40.0", "20.0", "0.5"]
