"""What a result makes of itself for other tools."""

from __future__ import annotations

import csv
import io
import sys
from typing import Any, Dict

import numpy as np
import pytest
from PIL import Image

from worker import contract
from worker.client import Result
from worker.errors import InvalidRequest, SettingsError

JOINTS = [[10.0 + 2 * number, 20.0 + number, 0.5] for number in range(17)]


def _result(**changed: Any) -> Result:
    fields: Dict[str, Any] = {
        "job_id": "a",
        "image": {"path": "a.jpg", "width": 80, "height": 60, "format": "JPEG"},
        "model": {"name": "net", "sha256": "0"},
        "people": [{"score": 0.75, "keypoints": [*JOINTS, None]}],
        "timings_ms": {},
        "worker": "cpu0@here",
        "device": "cpu",
        "attempt": 1,
    }
    return Result.model_validate({**fields, **changed})


def test_it_is_the_contracts_own() -> None:
    assert isinstance(_result(), contract.Result)
    assert _result().to_message()["people"][0]["score"] == 0.75


def test_openpose() -> None:
    (person,) = _result().to_openpose()["people"]
    assert person["pose_keypoints_2d"][:6] == [10.0, 20.0, 0.5, 12.0, 21.0, 0.5]
    assert person["pose_keypoints_2d"][-3:] == [0.0, 0.0, 0.0]
    (person,) = _result().to_openpose(order="BODY_25", keypoint_scale=3)["people"]
    assert len(person["pose_keypoints_2d"]) == 75
    for wrong in ({"order": "BODY_99"}, {"keypoint_scale": 9}):
        with pytest.raises(InvalidRequest, match=r"^The result cannot be written so"):
            _result().to_openpose(**wrong)


def test_coco() -> None:
    (entry,) = _result().to_coco(139)
    assert (entry["image_id"], entry["score"], len(entry["keypoints"])) == (139, 0.75, 51)
    assert entry["keypoints"][:3] == [10.0, 20.0, 0.5]
    assert _result(people=[]).to_coco(139) == []


def test_csv() -> None:
    header, row = csv.reader(io.StringIO(_result().to_csv()))
    assert header[:6] == ["image", "person", "score", "nose_x", "nose_y", "nose_c"]
    assert row[:6] == ["a.jpg", "1", "0.75", "10.0", "20.0", "0.5"]
    assert _result().to_csv(header=False).count("\n") == 1


def test_draw() -> None:
    grey = np.full((60, 80, 3), 128, np.uint8)
    drawn = _result().draw(grey)
    assert (drawn.shape, bool((grey == 128).all())) == ((60, 80, 3), True)
    assert (drawn != 128).any()
    picture = _result().draw(Image.fromarray(grey))
    assert (np.asarray(picture)[:, :, ::-1] == drawn).all()
    assert _result().draw(grey, background="transparent").shape == (60, 80, 4)


@pytest.mark.parametrize("image", [np.zeros((61, 80, 3), np.uint8), np.zeros((60, 80)), np.zeros((60, 80, 3))])
def test_another_image_is_not_drawn_on(image: np.ndarray) -> None:
    with pytest.raises(InvalidRequest, match=r"The result is of an image of 80x60, not of .*; give that one"):
        _result().draw(image)


def test_without_opencv_a_sentence_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "worker.pose.overlay", raising=False)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SettingsError, match="needs OpenCV, which is not installed here"):
        _result().draw(np.zeros((60, 80, 3), np.uint8))
