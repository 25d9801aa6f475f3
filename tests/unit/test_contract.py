"""The wire contract: what is refused, in which words, and the committed schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract_schema import json_schema
from worker.contract import Options, OverlayOptions, Result, parse_job, parse_message
from worker.errors import InvalidRequest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"sclaes": [1.0]}, "options.sclaes is not an option"),  # misspelt
        ({"target_height": "368"}, "options.target_height"),  # a string is not a number
        ({"target_height": True}, "options.target_height"),  # nor is a boolean
        ({"target_height": 63}, "options.target_height"),  # below the least
        ({"target_height": 10**9}, "options.target_height"),  # would exhaust the device
        ({"scales": []}, "options.scales"),
        ({"scales": [1.0] * 9}, "options.scales"),
        ({"scales": [0]}, "options.scales.0"),
        ({"scales": [float("nan")]}, "options.scales.0"),
        ({"merge": "sum"}, "options.merge"),
        ({"overlay": "yes"}, "options.overlay"),
        ({"overlay": {"alpha": 2}}, "options.overlay.alpha"),
        ({"overlay": {"color": 1}}, "options.overlay.color is not an option"),
        ({"overlay": {"colors": "red"}}, "options.overlay.colors"),
        ({"overlay": {"colors": "#ff000"}}, "options.overlay.colors"),
        ({"maps": 1}, "options.maps"),
        ([], "options"),
        ("fast", "options"),
        ({"min_score": object()}, "options: not JSON"),
    ],
)
def test_wrong_options_are_refused_naming_the_field(options: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_job("a.jpg", options)
    assert f"refused: {field}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", [None, 3, "", "x" * 5000, ["a.jpg"], {"path": "a.jpg"}])
def test_an_image_is_a_path(image: Any) -> None:
    with pytest.raises(InvalidRequest, match="image: must be a string"):
        parse_job(image, {})


def test_what_may_be_secret_in_a_url_is_not_told() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_job("https://user:secret@example.org/a.jpg?signature=secret#secret", {"colour": 1})
    assert "The job for 'https://example.org/a.jpg' was refused" in str(caught.value)


def test_a_message_with_other_arguments_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="picture is not an argument"):
        parse_message((), {"image": "a.jpg", "picture": "b.jpg"})
    with pytest.raises(InvalidRequest, match="image: given by position and by keyword"):
        parse_message(("a.jpg",), {"image": "a.jpg"})
    with pytest.raises(InvalidRequest, match="3 arguments stand by position"):
        parse_message(("a.jpg", {}, None), {})


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ({"webhook": 3}, "refused: webhook: "),
        ({"webhook": "ftp://example.org"}, "refused: webhook: "),
        ({"webhook": "https://example.org/a b"}, "refused: webhook: "),
        ({"webhook": "https://[::1"}, "refused: webhook: is no URL of a host"),
        ({"webhook": "https://u:secret@example.org:99999/a?secret"}, "(got 'https://example.org:99999/a')"),
        ({"callback": "shop.posed"}, "refused: callback: "),
        ({"callback": {"task": "shop.posed", "queue": "unacked"}}, "refused: callback.queue: that is no queue"),
        ({"callback": {"queue": "shop"}}, "refused: callback.task: field required"),
        ({"callback": {"task": "pose.estimate"}}, "refused: callback.task: names that begin with pose."),  # a circle
        ({"callback": {"task": "shop.posed", "args": []}}, "refused: callback.args is not an option"),
    ],
)
def test_who_is_told_of_the_end_is_checked_too(ends: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_message((), {"image": "a.jpg", **ends})
    assert told in str(caught.value)


@pytest.mark.parametrize("job_id", ["../../up", "a/b", ".hidden", "", "a\nb", "ä", "x" * 201, "a b"])
def test_an_id_that_could_not_be_a_file_name_is_refused(job_id: str) -> None:
    with pytest.raises(InvalidRequest, match="refused: job_id: must be"):
        parse_message((), {"image": "a.jpg"}, job_id)


def test_deeply_nested_options_end_in_one_sentence() -> None:
    nested: Any = {}
    for _ in range(100_000):
        nested = {"overlay": nested}
    with pytest.raises(InvalidRequest):
        parse_job("a.jpg", nested)


def test_defaults_and_forms_of_overlay() -> None:
    assert parse_job("a.jpg", None).options == Options()
    assert parse_job("a.jpg", {"overlay": False}).options.overlay_options is None
    assert parse_job("a.jpg", {}).options.overlay_options == OverlayOptions()
    assert parse_job("a.jpg", {"overlay": {"alpha": 0.5}}).options.overlay_options == OverlayOptions(alpha=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"target_height": 2048, "flip": True},
        {"preset": "accurate", "flip": True},
        {"preset": "accurate", "flip": True, "target_height": 736},
    ],
)
def test_what_is_documented_is_no_more_than_a_job_may_ask_for(options: Any) -> None:
    assert parse_job("/a.jpg", options).options.flip


@pytest.mark.parametrize(
    "options",
    [
        {"target_height": 2048, "scales": [1.95] * 8, "flip": True},
        {"target_height": 2048, "scales": [4]},
        {"target_height": 2048, "preset": "accurate"},
        {"max_width": 2048, "target_height": 2048, "scales": [1, 1, 1]},
    ],
)
def test_options_that_ask_for_minutes_of_the_net_are_refused(options: Any) -> None:
    with pytest.raises(InvalidRequest, match="target_height, scales and flip together ask the net for"):
        parse_job("/a.jpg", options)


def test_a_path_of_undecodable_bytes_is_kept() -> None:
    assert parse_job("a\udcff.jpg", {}).image == "a\udcff.jpg"


@pytest.mark.parametrize("parts", [[], ["hands"], ["body", "feet"], "body", ["body"] * 4])
def test_parts_that_cannot_be_found(parts: Any) -> None:
    with pytest.raises(InvalidRequest, match="parts"):
        parse_job("/a.jpg", {"parts": parts})
    assert parse_job("/a.jpg", {"parts": ["face", "body"]}).options.parts == ("face", "body")


@pytest.mark.parametrize("degrees", [45, -90, 360, 90.5, "90", None, True, [90]])
def test_turns_other_than_by_quarters_are_refused(degrees: Any) -> None:
    with pytest.raises(InvalidRequest, match="rotate: input should be 0, 90, 180 or 270"):
        parse_job("/a.jpg", {"rotate": degrees})


def test_a_result_whose_parts_do_not_fit_together() -> None:
    person = {"score": 0.5, "keypoints": [[1.5, 2.5, 0.9]] * 18}
    known: Any = {"image": {"path": "/a", "width": 4, "height": 3, "format": "JPEG"}, "timings_ms": {}, "attempt": 1}
    known.update(job_id="j", model={"name": "net", "sha256": "00"}, worker="w", device="cpu", people=[person])
    assert Result.model_validate(known).skeleton == "coco_18"  # as it was before there were others
    names = [f"n{i}" for i in range(18)]
    for wrong, words in (
        ({"keypoint_names": ["one"]}, "each must have 1 keypoints"),
        ({"keypoint_names": ["<b>", *names[1:]]}, "keypoint_names"),
        ({"keypoint_names": ["n1", *names[1:]]}, "two are the same"),
        ({"keypoint_names": names, "limbs": [[0, 18]]}, "two ends from 0 to 17"),
        ({"keypoint_names": names, "limbs": [[3, 3]]}, "two ends from 0 to 17"),
        ({"people": [{**person, "face": person["keypoints"]}]}, "face"),
        ({"people": [{**person, "hand_left": person["keypoints"]}]}, "hand_left"),
    ):
        with pytest.raises(ValueError, match=words):
            Result.model_validate({**known, **wrong})


def test_a_result_survives_the_wire() -> None:
    message = {
        "schema": 1,
        "job_id": "j",
        "image": {"path": "/a.jpg", "width": 4, "height": 3, "format": "JPEG", "frames": 1},
        "model": {"name": "net", "sha256": "00"},
        "skeleton": "stick",
        "keypoint_names": ["top", "bottom"],
        "limbs": [[0, 1]],
        "people": [{"score": 0.5, "keypoints": [[1.5, 2.5, 0.9], None]}],
        "overlay": None,
        "maps": None,
        "warnings": [],
        "timings_ms": {"total": 1.0},
        "worker": "cpu0@host",
        "device": "cpu",
        "attempt": 1,
    }
    assert Result.model_validate(json.loads(json.dumps(message))).to_message() == message


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = (ROOT / "docs" / "contract.schema.json").read_text()
    assert json.loads(committed) == json_schema(), (
        "run: python -m tests.support.contract_schema > docs/contract.schema.json"
    )
