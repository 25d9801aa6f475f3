"""A skeleton that nobody has thought of, from its manifest to the overlay: no line of code knows it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support import ROOT
from tests.support.reading_net import STAR, paint, write_reading_net
from tests.support.synthetic import draw_maps, person_of
from worker.pose.parts import face_box, hand_box
from worker.pose.skeleton import as_skeleton
from worker.pose.skeletons import BODY_25, FACE_70, HAND_21

pytestmark = pytest.mark.queue


def _submit(*arguments: object, **variables: object) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSE_")}
    return subprocess.run(
        [sys.executable, "-m", "worker", "submit", "--local", *map(str, arguments)],
        cwd=ROOT,
        env={**kept, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_made_up_skeleton_from_manifest_to_overlay(tmp_path: Path) -> None:
    skeleton = as_skeleton(STAR)
    write_reading_net(tmp_path / "nets" / "mine", skeleton, STAR)
    people = [person_of(skeleton, 15.3, 6.4, 36), person_of(skeleton, 55.6, 11.2, 40)]
    path, page = tmp_path / "stars.png", tmp_path / "report.html"
    cv2.imwrite(str(path), paint(*draw_maps(people, 60, 80, skeleton)))
    net: Any = {"POSE_MODELS_DIR": tmp_path / "nets", "POSE_MODEL": "mine", "POSE_WARM_SIZES": "480x640"}
    form = ("--target-height", 480, "--background", "black", "--thickness", 0.5)
    wanted = ("--out", tmp_path / "out", "--csv", tmp_path / "people.csv", "--report", page)
    done = _submit(*form, *wanted, path, **net)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "stars_keypoints.json").read_text())
    found = np.array([person["pose_keypoints_2d"] for person in document["people"]]).reshape(-1, 5, 3)
    expected = np.array(sorted((joints * 8 + 3.5 for joints in people), key=lambda joints: joints[0, 0]))
    assert found[np.argsort(found[:, 0, 0]), :, :2] == pytest.approx(expected, abs=2.0)
    drawn = cv2.imread(str(tmp_path / "out" / "stars_rendered.jpg"))
    for x, y in expected.reshape(-1, 2):
        assert drawn[round(y), round(x)].max() > 90
    assert drawn[5, 5].max() < 10
    rows = list(csv.DictReader((tmp_path / "people.csv").read_text().splitlines()))
    assert sorted(float(row["left_point_x"]) for row in rows) == pytest.approx(expected[:, 1, 0], abs=2.0)
    assert "left point" in page.read_text()


def test_no_coco_results_of_a_skeleton_that_lacks_coco_s(tmp_path: Path) -> None:
    write_reading_net(tmp_path / "nets" / "mine", as_skeleton(STAR), STAR)
    path = tmp_path / "1.png"
    cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    net: Any = {"POSE_MODELS_DIR": tmp_path / "nets", "POSE_MODEL": "mine"}
    done = _submit("--out", tmp_path / "out", "--coco", tmp_path / "results.json", path, **net)
    assert done.returncode == 1
    assert "The skeleton star has no nose, left_eye" in done.stderr


def test_a_worker_whose_net_has_another_skeleton_than_maps_does_not_start(tmp_path: Path) -> None:
    directory = write_reading_net(tmp_path / "nets" / "mine", as_skeleton(STAR), "coco_18")
    path = tmp_path / "1.png"
    cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    net: Any = {"POSE_MODELS_DIR": directory.parent, "POSE_MODEL": "mine"}
    done = _submit("--out", tmp_path / "out", path, **net)
    assert done.returncode != 0
    assert "its skeleton coco_18 asks for 19 and 38" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """A picture of two people, and the nets of bodies, hands and faces that can read it."""
    write_reading_net(tmp_path / "nets" / "body", BODY_25, "body_25")
    write_reading_net(tmp_path / "nets" / "hand", HAND_21, "hand_21")
    write_reading_net(tmp_path / "nets" / "face", FACE_70, "face_70")
    people = [person_of(BODY_25, 17.3, 6.4, 40), person_of(BODY_25, 57.6, 8.2, 38)]
    cv2.imwrite(str(tmp_path / "crowd.png"), paint(*draw_maps(people, 60, 80, BODY_25)))
    return tmp_path / "crowd.png"


def test_hands_and_faces_of_all_people_lie_where_their_bodies_say(crowd: Path, tmp_path: Path) -> None:
    nets: Any = {"POSE_MODELS_DIR": tmp_path / "nets", "POSE_MODEL": "body", "POSE_HAND_NET": "hand"}
    nets = {**nets, "POSE_FACE_NET": "face", "POSE_WARM_SIZES": "480x640"}
    out = tmp_path / "out"
    done = _submit("--target-height", 480, "--hand", "--face", "--out", out, crowd, **nets)
    assert done.returncode == 0, done.stderr
    people = json.loads((out / "crowd_keypoints.json").read_text())["people"]
    assert len(people) == 2
    for person in people:
        body = np.reshape(person["pose_keypoints_2d"], (25, 3))
        boxes = {
            "hand_right": hand_box(body[[4, 3, 2]], mirrored=False),
            "hand_left": hand_box(body[[7, 6, 5]], mirrored=True),
            "face": face_box(body[[0, 1, 16, 15, 18, 17]]),
        }
        for part, box in boxes.items():
            found = np.reshape(person[f"{part}_keypoints_2d"], (70 if part == "face" else 21, 3))
            found = found[found[:, 2] > 0]
            assert len(found) > 10  # whatever these nets take for them
            assert box is not None
            assert (found[:, 0] >= box.left - 1).all()
            assert (found[:, 0] <= box.left + box.side + 1).all()
            assert (found[:, 1] >= box.top - 1).all()
            assert (found[:, 1] <= box.top + box.side + 1).all()
    assert (out / "crowd_rendered.jpg").exists()


def test_a_worker_without_these_nets_refuses_by_name(crowd: Path, tmp_path: Path) -> None:
    nets: Any = {"POSE_MODELS_DIR": tmp_path / "nets", "POSE_MODEL": "body", "POSE_HAND_NET": "hand"}
    done = _submit("--hand", "--face", "--out", tmp_path / "out", crowd, **nets)
    assert done.returncode == 1
    assert "InvalidRequest" in done.stderr
    assert "asks for the part 'face', but this worker has no net of it" in done.stderr
    assert "POSE_FACE_NET" in done.stderr
