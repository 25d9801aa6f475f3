"""A net and a skeleton that nobody knew before: from a Caffe net and a file of data to people and a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import ROOT, clean_environ
from tests.support.caffe_nets import write_caffemodel
from tests.support.documents import example
from tests.support.reading_net import STAR, paint, reading_weights
from tests.support.synthetic import draw_maps, person_of
from worker.engine import read_manifest
from worker.pose.skeleton import as_skeleton

pytestmark = pytest.mark.queue

#: The net that reads its maps from the image, as Caffe would have it.
PROTOTXT = """
layer { name: "image" type: "Input" top: "image" input_param { shape { dim: [1, 3, 64, 64] } } }
layer {
  name: "read" type: "Convolution" bottom: "image" top: "net_output"
  convolution_param { num_output: 14 kernel_size: 8 stride: 8 }
}
"""


def _call(folder: Path, *arguments: object) -> str:
    variables = {**clean_environ(), "POSE_MODELS_DIR": str(folder / "models"), "POSE_MODEL": "star"}
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_five_joints_of_painted_people(tmp_path: Path) -> None:
    """What is new is data: docs/models.md has the skeleton, Caffe's files the net."""
    skeleton = as_skeleton(STAR)
    read = reading_weights(skeleton)
    (tmp_path / "mine.toml").write_text(example("docs/models.md", "toml", "[star.skeleton]"))
    (tmp_path / "deploy.prototxt").write_text(PROTOTXT)
    # the document's net is fed (pixel - 128) / 256
    write_caffemodel(tmp_path / "trained.caffemodel", {"read": [256 * read, 128 * read.sum((1, 2, 3))]})
    own = ("--prototxt", tmp_path / "deploy.prototxt", "--catalog", tmp_path / "mine.toml")
    _call(tmp_path, "models.convert", tmp_path / "trained.caffemodel", "--net", "star", *own)
    assert read_manifest(tmp_path / "models" / "star").skeleton == STAR
    people = [person_of(skeleton, 15.3, 6.4, 32), person_of(skeleton, 45.6, 7.2, 30)]
    cv2.imwrite(str(tmp_path / "painted.png"), paint(*draw_maps(people, 46, 62, skeleton)))
    said = _call(tmp_path, "worker", "submit", "--local", "--out", tmp_path / "out", tmp_path / "painted.png")
    assert "1 images, 2 people, 0 failed" in said
    document = json.loads((tmp_path / "out" / "painted_keypoints.json").read_text())
    found = np.array([person["pose_keypoints_2d"] for person in document["people"]]).reshape(2, 5, 3)
    expected = np.array(people) * 8 + 3.5
    np.testing.assert_allclose(found[np.argsort(found[:, 0, 0]), :, :2], expected, atol=2)
    assert cv2.imread(str(tmp_path / "out" / "painted_rendered.jpg")).shape == (368, 496, 3)
