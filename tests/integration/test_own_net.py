"""A net and a skeleton that nobody knew before: from a Caffe net and a file of data to people and a picture."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import cv2
import numpy as np
import pytest

from tests.support import ROOT, clean_environ
from tests.support.caffe_nets import write_caffemodel
from tests.support.documents import example

pytestmark = pytest.mark.queue

#: Of each cell of 8×8 pixels, how much blue says which joint its left half shows, and which limb its right half, where
#: green and red say the direction.
JOINTS, LIMBS = (10, 35, 60, 85, 110), (150, 175, 200, 225)
NOTHING = (255, 128, 128)

#: A net that reads such pictures: how near blue is to each level, and the direction where it is a limb's.
PROTOTXT = """
layer { name: "image" type: "Input" top: "image" input_param { shape { dim: [1, 3, 8, 8] } } }
layer {
  name: "cells" type: "Convolution" bottom: "image" top: "cells"
  convolution_param { num_output: 4 kernel_size: 8 stride: 8 }
}
layer { name: "off" type: "Convolution" bottom: "cells" top: "off" convolution_param { num_output: 18 kernel_size: 1 } }
layer { name: "off_r" type: "ReLU" bottom: "off" top: "off" }
layer { name: "near" type: "Convolution" bottom: "off" top: "near" convolution_param { num_output: 9 kernel_size: 1 } }
layer { name: "near_r" type: "ReLU" bottom: "near" top: "near" }
layer { name: "way" type: "Convolution" bottom: "cells" top: "way" convolution_param { num_output: 8 kernel_size: 1 } }
layer { name: "limb" type: "Convolution" bottom: "near" top: "limb" convolution_param { num_output: 8 kernel_size: 1 } }
layer { name: "pafs" type: "Eltwise" bottom: "way" bottom: "limb" top: "pafs" eltwise_param { operation: PROD } }
layer {
  name: "joint" type: "Convolution" bottom: "near" top: "joint" convolution_param { num_output: 6 kernel_size: 1 }
}
layer { name: "all" type: "Concat" bottom: "joint" bottom: "pafs" top: "net_output" }
"""

Person = Dict[str, Tuple[int, int]]
#: Joints of two people, in cells across and down.
PEOPLE: List[Person] = [
    {"head": (15, 18), "left_hand": (27, 5), "right_hand": (3, 6), "left_foot": (26, 42), "right_foot": (4, 40)},
    {"head": (46, 20), "left_hand": (58, 7), "right_hand": (34, 6), "left_foot": (57, 41), "right_foot": (36, 42)},
]


def _weights() -> Dict[str, List[np.ndarray]]:
    cells = np.zeros((4, 3, 8, 8))
    cells[0, 0, :, :4] = cells[1, 0, :, 4:] = cells[2, 1, :, 4:] = cells[3, 2, :, 4:] = 1 / 32
    levels = (np.array([*JOINTS, *LIMBS]) - 128) / 256
    steep = 256 / 12  # 0 where blue is 12 away
    off = np.zeros((18, 4))
    off[:5, 0], off[5:9, 1] = steep, steep
    off[9:] = -off[:9]
    way = np.zeros((8, 4))
    way[::2, 2] = way[1::2, 3] = 256 / 127
    joint = np.zeros((6, 9))
    joint[np.arange(5), np.arange(5)] = 1
    made = {
        "cells": (cells, np.zeros(4)),
        "off": (off, np.concatenate([-levels, levels]) * steep),
        "near": (np.concatenate([-np.eye(9), -np.eye(9)], 1), np.ones(9)),
        "way": (way, np.zeros(8)),
        "limb": (np.eye(9)[5:].repeat(2, 0), np.zeros(8)),
        "joint": (joint, np.zeros(6)),
    }
    return {
        name: [w.reshape(*w.shape[:2], *w.shape[2:] or (1, 1)).astype(np.float32), b.astype(np.float32)]
        for name, (w, b) in made.items()
    }


def _picture(people: List[Person]) -> np.ndarray:
    joints, limbs = (np.full((46, 62, 3), NOTHING, np.uint8) for _ in range(2))
    for person in people:
        start = np.array(person["head"], float)
        for level, end in zip(LIMBS, list(person.values())[1:]):
            unit = (end - start) / np.linalg.norm(end - start)
            for share in np.linspace(0, 1, 100):
                x, y = np.round(start + share * (end - start)).astype(int)
                limbs[y - 1 : y + 2, x - 1 : x + 2] = (level, *np.round(128 + 127 * unit))
        for level, (x, y) in zip(JOINTS, person.values()):  # less and less of it around its middle
            for row, column in itertools.product((-1, 0, 1), repeat=2):
                near = np.exp(-(row**2 + column**2) / 2)
                joints[y + row, x + column] = (level + round(12 * (1 - near)), 128, 128)
    return np.stack([joints, limbs], 2).repeat(4, 2).reshape(46, 62 * 8, 3).repeat(8, 0)


def _call(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    variables = {**clean_environ(), "POSE_MODELS_DIR": str(folder / "models"), "POSE_MODEL": "star"}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True, timeout=200)


def test_five_joints_of_painted_people(tmp_path: Path) -> None:
    """What is new is data: docs/models.md has the skeleton, Caffe's files the net."""
    (tmp_path / "mine.toml").write_text(example("docs/models.md", "toml", "[star.skeleton]"))
    (tmp_path / "deploy.prototxt").write_text(PROTOTXT)
    weights = write_caffemodel(tmp_path / "trained.caffemodel", _weights())
    own = ("--prototxt", tmp_path / "deploy.prototxt", "--catalog", tmp_path / "mine.toml")
    _call(tmp_path, "models.convert", weights, "--net", "star", *own)
    picture = _picture(PEOPLE)
    cv2.imwrite(str(tmp_path / "painted.png"), picture)
    out = tmp_path / "out"
    done = _call(tmp_path, "worker", "submit", "--local", "--out", out, tmp_path / "painted.png")
    assert "1 images, 2 people, 0 failed" in done.stdout + done.stderr
    written = json.loads(next(out.glob("*.json")).read_text())["people"]
    found = np.array([person["pose_keypoints_2d"] for person in written]).reshape(2, 5, 3)
    found = found[np.argsort(found[:, 0, 0])]
    expected = np.array([list(person.values()) for person in PEOPLE]) * 8 + 3.5
    np.testing.assert_allclose(found[..., :2], expected, atol=4)
    assert found[..., 2].min() > 0.5
    overlay = cv2.imread(str(next(out.glob("*.jpg"))))
    assert overlay.shape == picture.shape
    for x, y in expected.reshape(-1, 2).astype(int):  # a joint is drawn on what is painted there
        assert np.abs(overlay[y, x].astype(int) - picture[y, x]).max() > 40
