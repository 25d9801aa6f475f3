"""What the documents promise of options is so, what they link to is there, and their examples are executed."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any, Dict, List

import click
import pytest

from tests.support import ROOT
from tests.support.documents import command, example, examples
from tests.unit.test_rooms import MAY_IMPORT
from worker.__main__ import main
from worker.cli.evaluate import evaluate
from worker.cli.submit import submit
from worker.contract import Image, Job, Model, Options, OverlayOptions, Result
from worker.video_contract import VideoJob, VideoOptions

DOCUMENTS = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
#: The documents that say where something is.
GUIDES = ("README.md", "CONTRIBUTING.md", "docs/architecture.md")
OPENPOSE = (ROOT / "docs" / "openpose.md").read_text(encoding="utf-8")
#: The cells of each row: OpenPose's flags, option of a job, option of submit, remarks.
ROWS = [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\| `--.*$", OPENPOSE, re.M)]


def test_every_option_that_stands_for_one_of_openpose_exists() -> None:
    assert len(ROWS) > 15
    flags = {name for parameter in submit.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for _, option, argument, _ in ROWS:
        for name in re.findall(r"`([a-z_.]+)", option):
            parent, _, child = name.partition(".")
            assert parent in VideoOptions.model_fields, name
            assert not child or child in OverlayOptions.model_fields, name
        assert set(re.findall(r"--[a-z-]+", argument)) <= flags, argument


@pytest.mark.parametrize(
    ("flag", "default"),
    [("--alpha_pose", OverlayOptions().alpha), ("--render_threshold", OverlayOptions().render_threshold)],
)
def test_defaults_that_are_the_same_in_both(flag: str, default: float) -> None:
    (remarks,) = [row[3] for row in ROWS if f"`{flag}`" in row[0]]
    assert remarks.startswith(f"{default} in both")


def test_the_example_of_formats_runs() -> None:
    result = Result(
        job_id="j",
        image=Image(path="a.jpg", width=200, height=100, format="JPEG"),
        model=Model(name="net", sha256="0"),
        people=[{"score": 0.5, "keypoints": [[1.0, 2.0, 0.5]] * 18}],
        timings_ms={},
        worker="cpu0@here",
        device="cpu",
        attempt=1,
    )
    names: Dict[str, Any] = {"result": result}
    exec(compile(example("docs/openpose.md", "python", "coco_results"), "openpose.md", "exec"), names)
    assert len(names["document"]["people"][0]["pose_keypoints_2d"]) == 75
    assert names["entries"][0]["image_id"] == 139


def test_the_message_document_has_every_argument_and_option_with_its_default() -> None:
    text = (ROOT / "docs" / "message.md").read_text(encoding="utf-8")
    rows: List[str] = re.findall(r"^\| `([a-z_]+)` \|", text, re.M)
    options = {**VideoOptions.model_fields, **Options.model_fields}
    assert set(rows) == {*Job.model_fields, *VideoJob.model_fields, *options}
    for name, field in options.items():
        shown = json.dumps(field.default)
        assert f"| `{name}` | {shown} |" in text, name
    for name in OverlayOptions.model_fields:
        assert f"`{name}`" in text


@pytest.mark.parametrize("line", [line for block in examples("docs/accuracy.md", "sh") for line in block.splitlines()])
def test_what_measures_accuracy_is_a_command(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "person_keypoints_val2017.json").touch()
    (tmp_path / "val2017").mkdir()
    known = "--annotations person_keypoints_val2017.json --images val2017"
    _, words = command(line.replace("--annotations … --images …", known))
    assert words[1:4] == ["-m", "worker", "evaluate"]
    evaluate.make_context("evaluate", words[4:])  # tests/unit/cli/test_evaluate.py runs it


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_links_to_is_there(document: str) -> None:
    prose = _prose(document)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            found = (ROOT / document).parent / path if path else ROOT / document
            assert found.exists(), target
            assert not anchor or anchor in _anchors(found.read_text(encoding="utf-8")), target
    for name in re.findall(r"`((?:docs|deploy|tests|worker|models|benchmarks)/[\w./-]+\.\w+)`", prose):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("document", GUIDES)
def test_every_path_that_a_guide_names_is_there(document: str) -> None:
    names = [name for name in re.findall(r"`([\w.*][\w./*-]*)`", _prose(document)) if _is_path(name)]
    assert names
    assert [name for name in names if not any(ROOT.glob(name))] == []


def _is_path(name: str) -> bool:
    """Whether `name` is meant as a path from the repository's root, of something that is part of it."""
    made_later = name.startswith((".venv", "out/"))
    return (
        not made_later and name != "__init__.py" and ("/" in name or name.endswith((".py", ".toml", ".txt", ".lock")))
    )


@pytest.mark.parametrize("document", GUIDES)
def test_what_a_guide_says_is_in_a_file_is_defined_there(document: str) -> None:
    for name, path in re.findall(r"`(\w+)` in `([\w/]+\.py)`", _prose(document)):
        text = (ROOT / path).read_text(encoding="utf-8")
        field = name.lower().replace("pose_", "")  # of a setting
        assert re.search(rf"^\s*(def |class )?({name}|{field})\b", text, re.M), f"{name} in {path}"


def test_the_import_table_is_the_one_that_a_test_checks() -> None:
    section = _prose("docs/architecture.md").partition("## Who may import whom")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w`, ]+) \| ([\w., ]+) \|$", section, re.M)
    shown = {room.strip("` "): names for rooms, names in rows[1:] for room in rooms.split(",")}
    for room, imported in MAY_IMPORT.items():
        assert set(shown[room].replace("no other room", "").replace(",", " ").split()) == set(imported.split()), room
    assert set(shown) == set(MAY_IMPORT)


def _prose(document: str) -> str:
    """A document without its examples."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_says_to_call_is_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    programs = Path(sys.executable).parent
    for program in re.findall(r"\.venv/bin/([\w-]+)", text):
        assert (programs / program).exists(), program
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.M)) <= set(targets)
    for name in re.findall(r"python -m worker ([a-z]+)", text):
        assert main.get_command(click.Context(main), name), name
    for module in re.findall(r"python -m ((?:worker|models|benchmarks|tests)\.[\w.]+)", text):
        assert importlib.util.find_spec(module.rstrip(".")), module


def test_every_protection_has_a_test_that_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    _, _, section = text.partition("\n## Which test holds which protection\n")
    rows = [row for row in section.split("\n## ")[0].splitlines() if row.startswith("| ") and "| test |" not in row]
    assert len(rows) > 70
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+)(?:\[[^\]]*\])?)?`", row)
        assert named, row
        for path, test in named:
            assert not test or f"\ndef {test}(" in (ROOT / path).read_text(encoding="utf-8"), row


def _anchors(text: str) -> List[str]:
    """What the headings of a Markdown text are linked to by."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_example_is_taken_from_its_document_by_a_test() -> None:
    taken = [
        found
        for path in (ROOT / "tests").rglob("*.py")
        for found in re.findall(r'examples?\(\s*"([^"]+)", "(\w+)"(?:, "([^"]+)")?', path.read_text(encoding="utf-8"))
    ]
    left = [
        (document, block)
        for document in DOCUMENTS
        for language in ("sh", "python", "js")
        for block in examples(document, language)
        if not any((document, language) == one[:2] and one[2] in block for one in taken)
    ]
    assert left == []
