"""``python -m worker evaluate``: right figures, the promised keys, and images that fail."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from tests.support import ROOT, clean_environ
from worker.cli import options
from worker.cli.coco import LabelledImages
from worker.cli.evaluate import evaluate
from worker.contract import PRESETS, Options, parse_job
from worker.errors import InvalidRequest, SettingsError
from worker.people import to_estimate_options
from worker.pose.estimator import EstimateOptions, Estimator
from worker.pose.formats import coco_results

KEYS = ["AP", "AP50", "AP75", "APm", "APl", "AR", "images", "images_per_s", "stages_ms"]


def _annotate(folder: Path, people: Dict[str, List[np.ndarray]]) -> Path:
    """A COCO annotation file: of each image's name its people, float (17, 3)."""
    images = [{"id": 10 + i, "file_name": name, "width": 640, "height": 480} for i, name in enumerate(people)]
    annotations: List[Dict[str, Any]] = []
    for image, joints in zip(images, people.values()):
        for person in joints:
            seen = person[person[:, 2] > 0, :2]
            width, height = seen.max(0) - seen.min(0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "iscrowd": 0,
                    "keypoints": np.where(person[:, 2:] > 0, np.c_[person[:, :2], np.full(17, 2)], 0).ravel().tolist(),
                    "num_keypoints": int((person[:, 2] > 0).sum()),
                    "bbox": [*seen.min(0).tolist(), float(width), float(height)],
                    "area": float(width * height / 2),
                }
            )
    file = folder / "annotations.json"
    categories = [{"id": 1, "name": "person"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def _person(left: float = 100.0) -> np.ndarray:
    rng = np.random.default_rng(int(left))
    return np.c_[rng.uniform(left, left + 90, 17), rng.uniform(20, 450, 17), np.ones(17)]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of two pictures and an annotation file that names three."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(folder / name), np.full((480, 640, 3), 90, np.uint8))
    _annotate(tmp_path, {"a.jpg": [_person(100), _person(300)], "b.jpg": [_person(200)], "gone.jpg": [_person()]})
    return folder


def _result(number: int, joints: np.ndarray, score: float) -> Dict[str, Any]:
    return {"image_id": number, "category_id": 1, "keypoints": joints.ravel().tolist(), "score": score}


def test_figures_are_those_of_coco(photographs: Path) -> None:
    labelled = LabelledImages(photographs.parent / "annotations.json", photographs)
    assert list(labelled.paths) == [10, 11]
    assert labelled.missing == 1
    perfect = [_result(10, _person(100), 0.9), _result(10, _person(300), 0.8), _result(11, _person(200), 0.7)]
    assert labelled.score(perfect) == {"AP": 1, "AP50": 1, "AP75": 1, "APm": None, "APl": 1, "AR": 1}
    without_one = labelled.score(perfect[:2])
    assert without_one["AR"] == pytest.approx(2 / 3, abs=1e-3)
    assert 0.6 < without_one["AP"] < 0.7
    wrong = [{**entry, "keypoints": [value + 500 for value in entry["keypoints"]]} for entry in perfect]
    assert labelled.score(wrong)["AP"] == 0
    assert labelled.score([])["AP"] == 0


def test_only_so_many_images(photographs: Path) -> None:
    labelled = LabelledImages(photographs.parent / "annotations.json", photographs, limit=1)
    assert list(labelled.paths) == [10]
    assert labelled.score([_result(10, _person(100), 0.9), _result(10, _person(300), 0.8)])["AP"] == 1


@pytest.mark.parametrize("text", ["", "{}", '{"images": [], "annotations": []}', "[1]", '{"annotations": [{}]}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InvalidRequest, match="is not a COCO keypoint annotation file"):
        LabelledImages(tmp_path / "x.json", tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("area", None, "annotations.1.area: field required"),  # OKS is nothing without it
        ("keypoints", ["x"] * 51, "annotations.1.keypoints.0: "),
        ("keypoints", [1, 2, 2], "annotations.1.keypoints: list should have at least 51 items"),
        ("image_id", "a", "annotations.1.image_id: "),
    ],
)
def test_a_person_labelled_wrongly_is_told(photographs: Path, field: str, value: Any, words: str) -> None:
    file = photographs.parent / "annotations.json"
    document = json.loads(file.read_text())
    if value is None:
        del document["annotations"][1][field]
    else:
        document["annotations"][1][field] = value
    file.write_text(json.dumps(document))
    with pytest.raises(InvalidRequest, match=f"is not a COCO keypoint annotation file .{re.escape(words)}"):
        LabelledImages(file, photographs)


def test_what_labelling_tools_leave_out_is_filled_in(photographs: Path) -> None:
    """Numbers from 0, ids as text, no counts, no categories, another category, boxes without keypoints between."""
    file = photographs.parent / "annotations.json"
    document = json.loads(file.read_text())
    del document["categories"]
    for number, person in enumerate(document["annotations"]):
        del person["iscrowd"], person["num_keypoints"]
        person.update(id=number, image_id=str(person["image_id"]), category_id=7)
    document["annotations"].insert(1, {"id": 3, "image_id": 10, "category_id": 2, "bbox": [0, 0, 5, 5]})
    file.write_text(json.dumps(document))
    perfect = [_result(10, _person(100), 0.9), _result(10, _person(300), 0.8), _result(11, _person(200), 0.7)]
    assert LabelledImages(file, photographs).score(perfect)["AP"] == 1


def test_a_folder_without_the_images_is_refused(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="holds none of the 3 images"):
        LabelledImages(tmp_path / "annotations.json", tmp_path)


def _evaluate(folder: Path, *arguments: object) -> Any:
    paths = ["--annotations", folder.parent / "annotations.json", "--images", folder]
    out = ["--out", folder.parent / "results.json"]
    return CliRunner().invoke(evaluate, [str(a) for a in (*paths, *out, *arguments)], catch_exceptions=False)


def test_json_has_the_promised_keys(photographs: Path, thin_net: Path) -> None:
    ended = _evaluate(photographs, "--in-process", "--engine", "null", "--json")
    assert ended.exit_code == 0, ended.output
    report = json.loads(ended.stdout)
    assert list(report) == KEYS
    assert list(report["stages_ms"]) == ["load", "preprocess", "net", "associate"]
    assert report["images"] == 2
    assert report["AP"] == 0
    assert report["images_per_s"] > 0
    assert all(ms >= 0 for ms in report["stages_ms"].values())
    assert json.loads((photographs.parent / "results.json").read_text()) == []


def test_an_image_that_fails_is_told_and_the_rest_is_measured(photographs: Path, thin_net: Path) -> None:
    (photographs / "b.jpg").write_text("not an image")
    ended = _evaluate(photographs, "--in-process", "--engine", "null")
    assert ended.exit_code == 1
    assert "images                   1" in ended.stdout
    assert f"{photographs / 'b.jpg'}: ImageUndecodable: " in ended.stderr


def test_the_people_found_are_the_people_scored(samples: Path, thin_net: Path, tmp_path: Path) -> None:
    """Images labelled with what the estimator itself finds: exactly that comes back through the command."""
    from worker.engine import load

    net = load(thin_net)
    estimator = Estimator(net, offset=net.manifest.heatmaps.offset)
    names = ["zidane.jpg", "bus.jpg"]
    labels = {}
    for name in names:
        shutil.copy(samples / name, tmp_path / name)
        (found,) = estimator.estimate([cv2.imread(str(tmp_path / name))], to_estimate_options(Options(preset="fast")))
        labels[name] = [np.reshape(entry["keypoints"], (17, 3)) for entry in coco_results(found.people, 0)]
    net.close()
    folder = tmp_path / "images"
    folder.mkdir()
    for name in names:
        shutil.move(tmp_path / name, folder / name)
    _annotate(tmp_path, labels)
    ended = _evaluate(folder, "--in-process", "--preset", "fast", "--json", "--min-score", "0.1")
    report = json.loads(ended.stdout)
    assert report["AP"] == report["AR"] == 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == sum(len(people) for people in labels.values())
    assert {entry["image_id"] for entry in results} == {10, 11}


@pytest.mark.long
@pytest.mark.queue
def test_through_a_queue_of_its_own(photographs: Path, thin_net: Path) -> None:
    (photographs / "b.jpg").write_text("not an image")
    command = [sys.executable, "-m", "worker", "evaluate", "--local", "--engine", "null", "--json"]
    command += ["--annotations", str(photographs.parent / "annotations.json"), "--images", str(photographs)]
    command += ["--out", str(photographs.parent / "results.json")]
    ended = subprocess.run(command, cwd=ROOT, env=clean_environ(), capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1, ended.stderr
    report = json.loads(ended.stdout)
    assert list(report) == KEYS
    assert report["images"] == 1
    assert "ImageUndecodable" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_deployed_worker_s_engine_is_not_chosen_here(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.settings import settings

    monkeypatch.setenv("POSE_BROKER_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    ended = _evaluate(photographs, "--engine", "torch")
    settings.cache_clear()
    assert ended.exit_code == 2
    assert "add --local or --in-process" in ended.stderr


def test_a_results_file_that_cannot_be_written_is_told_before_anything_is_started(photographs: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"results file \S+ cannot be written \(.+\); choose another"):
        _evaluate(photographs, "--in-process", "--engine", "torch", "--out", photographs / "a.jpg" / "results.json")


def test_a_precision_that_the_cpu_lacks_is_not_measured_as_another(
    photographs: Path, thin_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.engine import torch_engine

    monkeypatch.setattr(torch_engine, "_cpu_computes", lambda precision: False)
    with pytest.raises(SettingsError, match="no instructions for bf16; measure"):
        _evaluate(photographs, "--in-process", "--engine", "torch", "--precision", "bf16", "--target-height", "64")


def test_wrong_options_are_told_before_anything_is_started(photographs: Path) -> None:
    with pytest.raises(InvalidRequest, match="target_height"):
        _evaluate(photographs, "--in-process", "--target-height", "9")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_stands_for_options_that_the_contract_allows(name: str) -> None:
    alone = parse_job("a.jpg", {"preset": name}).options.effective()
    assert {key: getattr(alone, key) for key in PRESETS[name]} == PRESETS[name]
    assert Options.model_validate(PRESETS[name])


def test_what_is_given_beside_a_preset_wins() -> None:
    options = parse_job("a.jpg", {"preset": "accurate", "merge": "max", "max_people": 3}).options
    chosen = to_estimate_options(options)
    assert chosen.merge == "max"
    assert chosen.max_people == 3
    assert chosen.scales == PRESETS["accurate"]["scales"]


@pytest.mark.parametrize(
    ("words", "refine"),
    [((), None), (("--refine",), "once"), (("--refine", "--flip"), "once"), (("--refine", "twice"), "twice")],
)
def test_refine_alone_means_once(words: Tuple[str, ...], refine: Optional[str]) -> None:
    @click.command()
    @options.estimation
    def command(**wanted: Any) -> None:
        click.echo(str(wanted["refine"]))

    ended = CliRunner().invoke(command, words)
    assert (ended.exit_code, ended.stdout.strip()) == (0, str(refine))


def test_without_a_preset_nothing_changes() -> None:
    assert to_estimate_options(Options()) == EstimateOptions()
