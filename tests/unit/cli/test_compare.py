"""Two runs beside each other: the figures are COCO's, and few images are called chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest

from worker.cli.coco import LabelledImages
from worker.cli.compare import read_results
from worker.errors import InvalidRequest


def _entry(image: int, keypoints: np.ndarray, score: float) -> Dict[str, Any]:
    flat = np.c_[keypoints, np.full(17, 0.9)].ravel().tolist()
    return {"image_id": image, "category_id": 1, "keypoints": flat, "score": score}


def _labelled(folder: Path, count: int, seed: int) -> Tuple[LabelledImages, List[np.ndarray]]:
    """Images of one person each, and where the people are."""
    random = np.random.default_rng(seed)
    people = [random.uniform((100, 50), (250, 350), (17, 2)) for _ in range(count)]
    images = [{"id": n + 1, "file_name": f"{n}.jpg"} for n in range(count)]
    annotations = [
        {"image_id": n + 1, "keypoints": np.c_[one, np.full(17, 2)].ravel().tolist(), "area": 4e4, "bbox": [9, 9, 9, 9]}
        for n, one in enumerate(people)
    ]
    for image in images:
        (folder / str(image["file_name"])).touch()
    file = folder / "annotations.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return LabelledImages(file, folder), people


def _run(people: List[np.ndarray], error: float, seed: int, seen: float = 0.9) -> List[Dict[str, Any]]:
    """What is found with an `error` in pixels, with false people among it."""
    random = np.random.default_rng(seed)
    found = []
    for n, one in enumerate(people):
        if random.random() < seen:
            found.append(_entry(n + 1, one + random.normal(size=one.shape) * error, random.uniform(0.3, 1)))
        if random.random() < 0.3:
            found.append(_entry(n + 1, random.uniform(0, 400, one.shape), random.uniform(0, 0.6)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_difference_is_that_of_cocos_figures(tmp_path: Path, seed: int) -> None:
    labelled, people = _labelled(tmp_path, 12, seed)
    ours, theirs = _run(people, 8, seed), _run(people, 25, seed + 100)
    compared = labelled.compare(ours, theirs)
    assert compared.difference == pytest.approx(labelled.score(ours)["AP"] - labelled.score(theirs)["AP"], abs=1.1e-4)
    assert compared.low <= compared.difference <= compared.high
    assert labelled.compare(ours, theirs) == compared
    assert labelled.compare(theirs, ours).difference == pytest.approx(-compared.difference)


def test_the_same_run_differs_by_nothing(tmp_path: Path) -> None:
    labelled, people = _labelled(tmp_path, 6, 1)
    run = _run(people, 15, 1)
    compared = labelled.compare(run, run)
    assert (compared.difference, compared.low, compared.high) == (0, 0, 0)


def test_a_small_gain_is_chance_on_few_images_and_none_on_many(tmp_path: Path) -> None:
    chance = []
    for count in (8, 600):
        folder = tmp_path / str(count)
        folder.mkdir()
        labelled, people = _labelled(folder, count, 3)
        compared = labelled.compare(_run(people, 20, 5), _run(people, 22, 6))
        chance.append(compared.low <= 0 <= compared.high)
    assert chance == [True, False]


def test_a_run_that_found_nobody(tmp_path: Path) -> None:
    labelled, people = _labelled(tmp_path, 6, 1)
    run = _run(people, 5, 1, seen=1.0)
    assert labelled.compare(run, []).difference == pytest.approx(labelled.score(run)["AP"], abs=1e-4)
    assert labelled.compare([], []).difference == 0


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"image_id": 1}]', '[{"image_id": 1, "score": 1, "keypoints": [1, 2]}]', "\x00"]
)
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match=r"a\.json is not a COCO keypoint results file .* give one that evaluate"):
        read_results(file)
