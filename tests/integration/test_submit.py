"""``python -m worker submit --local``: files in, files out, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import cv2
import psutil
import pytest

from tests.support import ROOT
from tests.support.documents import example

pytestmark = pytest.mark.queue


@pytest.fixture
def photographs(tmp_path: Path, samples: Path) -> Path:
    """Two that would write the same files, one in a subfolder whose name is no UTF-8, and a text in disguise."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(samples / "bus.jpg", folder / "bus.jpg")
    shutil.copy(samples / "astronaut.png", folder / "bus.png")
    shutil.copy(samples / "zidane.jpg", folder / "deep" / os.fsdecode(b"zi\xffdane.JPG"))
    (folder / "broken.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def _start(*arguments: object, **variables: str) -> subprocess.Popen:
    environment: Dict[str, Any] = {k: v for k, v in os.environ.items() if not k.startswith("POSE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "worker", "submit", *map(str, arguments)],
        cwd=ROOT,
        env={**environment, "POSE_WARM_SIZES": "368x280", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _family(process: subprocess.Popen) -> List[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_a_directory_with_one_bad_file(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = tmp_path / "report.html"
    process = _start("--local", "--out", out, "--report", report, photographs)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 1, stderr
    assert "3 images" in stdout
    assert "1 failed" in stdout
    assert "ImageUndecodable" in stderr
    assert str(photographs / "broken.jpg") in stderr
    assert "Traceback" not in stderr
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert written == [
        "bus.png_keypoints.json",
        "bus.png_rendered.jpg",
        "bus_keypoints.json",
        "bus_rendered.jpg",
        "deep/zi\udcffdane_keypoints.json",
        "deep/zi\udcffdane_rendered.jpg",
    ]
    document = json.loads((out / "bus_keypoints.json").read_text())
    assert document["version"] == 1.3
    assert len(document["people"]) >= 3
    assert all(len(person["pose_keypoints_2d"]) == 54 for person in document["people"])
    assert cv2.imread(str(out / "bus_rendered.jpg")).shape == (1080, 810, 3)
    page = report.read_text()
    assert [page.count(part) for part in ("<article", 'class="failed"', "data:image/jpeg")] == [4, 1, 3]


@pytest.mark.long
def test_nothing_but_keypoints_for_a_glob_and_a_pattern_without_a_match(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    form = ("--no-overlay", "--keypoint-order", "BODY_25", "--keypoint-scale", 3, "--maps", "--max-people", 1)
    process = _start(*form, "--out", out, photographs / "*.png", photographs / "*.webp")
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "1 images" in stdout
    assert "No file matches" in stderr
    assert sorted(path.name for path in out.iterdir()) == ["bus_keypoints.json", "bus_maps.npz"]
    (person,) = json.loads((out / "bus_keypoints.json").read_text())["people"]
    assert len(person["pose_keypoints_2d"]) == 75
    assert all(0 <= value <= 1 for value in person["pose_keypoints_2d"])


_SIGNALS = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL]


@pytest.mark.parametrize("signum", _SIGNALS)
def test_a_killed_command_leaves_no_process_and_no_folder(
    photographs: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = _start("--local", "--out", tmp_path / "out", photographs, TMPDIR=str(temporary))
    deadline = time.monotonic() + 90
    while len(family := _family(process)) < 3 and time.monotonic() < deadline:  # Redis, the worker, its child
        time.sleep(0.05)
    assert len(family) >= 3
    process.send_signal(signum)
    process.communicate(timeout=30)
    assert process.returncode == (-signum if signum == signal.SIGKILL else 128 + signum)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert list(temporary.iterdir()) == []


def test_a_local_worker_has_no_part_in_the_deployment_that_the_environment_names(tmp_path: Path, samples: Path) -> None:
    secret = tmp_path / "results"
    secret.write_text("redis://127.0.0.1:1/0")
    elsewhere = {"POSE_BROKER_URL": "redis://127.0.0.1:1/0", "POSE_RESULT_BACKEND_FILE": str(secret)}
    elsewhere.update(POSE_QUEUE="first", POSE_QUEUES="second,third", POSE_OVERLAY_STORE="file:///nowhere")
    image = samples / "bus.jpg"
    process = _start("--local", "--timeout", 60, "--out", tmp_path / "out", image, POSE_ENGINE="null", **elsewhere)
    stdout, stderr = process.communicate(timeout=90)
    assert process.returncode == 0, stderr
    assert "1 images, 0 people, 0 failed" in stdout


def test_wrong_options_are_refused_before_anything_starts(tmp_path: Path) -> None:
    process = _start("--local", "--target-height", 7, "--out", tmp_path / "out", "a.jpg")
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "options.target_height" in stderr
    assert "Traceback" not in stderr


@pytest.mark.long
def test_a_local_worker_that_cannot_start_ends_the_command_with_its_reason(tmp_path: Path) -> None:
    process = _start("--local", "--out", tmp_path / "out", "a.jpg", POSE_MODEL="absent")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "absent" in stderr
    assert "Traceback" not in stderr


@pytest.mark.long
def test_the_first_command_of_the_readme(samples: Path, tmp_path: Path) -> None:
    block = [line.split("#")[0].split() for line in example("README.md", "sh", "make demo").splitlines()]
    assert block == [["make", "demo"], ["make", "test"]]
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("make demo would build an environment of its own")
    (tmp_path / "holiday").mkdir()
    shutil.copy(samples / "zidane.jpg", tmp_path / "holiday")
    own = f"IMAGES={tmp_path}/holiday OUT={tmp_path}/drawn"
    assert "`make demo IMAGES=holiday OUT=drawn`" in (ROOT / "README.md").read_text()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("POSE_", "MAKE"))}
    done = subprocess.run(
        [*block[0], *own.split()], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert "1 images, 2 people, 0 failed" in done.stdout
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert names == {"zidane_keypoints.json", "zidane_rendered.jpg", "report.html"}
