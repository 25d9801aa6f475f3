"""The commands find the deployment that the environment names: its queue, its key prefix, its result backend."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import redis

from tests.support import ROOT, clean_environ
from worker.children import stop_child
from worker.cli.local import embedded_redis
from worker.jobs.ledger import Ledger, Message

pytestmark = pytest.mark.queue

Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def images(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one photograph; beside it, a COCO file with one person in it."""
    folder = tmp_path_factory.mktemp("labelled") / "images"
    folder.mkdir()
    shutil.copy(samples / "bus.jpg", folder)
    person = {"image_id": 1, "keypoints": [100, 200, 2] * 17, "area": 900.0, "bbox": [90, 190, 30, 30]}
    document = {"images": [{"id": 1, "file_name": "bus.jpg"}], "annotations": [person]}
    (folder.parent / "labels.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def results() -> Any:
    """The URL of a second Redis, for results alone."""
    with embedded_redis() as url:
        yield url


@pytest.fixture(scope="module")
def command(broker: str, results: str, images: Path, start_worker: Callable[..., subprocess.Popen]) -> Any:
    """Runs a command of the deployment called ``two``, which has a worker that finds nobody."""
    deployment: Dict[str, Any] = {
        "POSE_BROKER_URL": broker,
        "POSE_RESULT_BACKEND": results,
        "POSE_KEY_PREFIX": "two",
        "POSE_QUEUE": "second",
    }
    worker = start_worker("cpu4", **deployment, POSE_ENGINE="null", POSE_IMAGE_ROOTS=images)

    def run(*arguments: object) -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", "worker", *map(str, arguments)]
        environment = {**clean_environ(), **deployment}
        return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)

    yield run
    assert stop_child(worker, grace_s=20) == 0


def test_evaluate(command: Command, images: Path, tmp_path: Path) -> None:
    labels, out = images.parent / "labels.json", tmp_path / "found.json"
    ended = command("evaluate", "--annotations", labels, "--images", images, "--out", out, "--json", "--timeout", 60)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["images"], report["AP"]) == (1, 0)
    assert json.loads(out.read_text()) == []


def test_submit(command: Command, images: Path, tmp_path: Path) -> None:
    ended = command("submit", "--out", tmp_path, "--timeout", 60, images)
    assert ended.returncode == 0, ended.stderr
    assert "1 images, 0 people, 0 failed" in ended.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"bus_keypoints.json", "bus_rendered.jpg"}


def test_dead_letters(command: Command, results: str, images: Path) -> None:
    kwargs = {"image": str(images / "bus.jpg"), "options": {"overlay": False}}
    with redis.Redis.from_url(results) as client:
        Ledger(client, "two").record("late", Message("second", kwargs=kwargs))
        client.hset("two:job:late", "state", "dead")
        client.zadd("two:dead", {"late": time.time()})
    listed = command("dead", "list", "--json")
    assert [json.loads(line)["job_id"] for line in listed.stdout.splitlines()] == ["late"], listed.stderr
    assert command("dead", "requeue", "late").stdout == "1 put back\n"
    assert "0 dead letters" in command("dead", "list").stdout


def test_refused_messages(command: Command, broker: str, results: str) -> None:
    with redis.Redis.from_url(results) as client:
        client.lpush("two:refused", json.dumps({"time": 1.0, "queue": "second", "job_id": None, "why": "it is odd"}))
    assert "it is odd" in command("refused", "list").stdout
    assert command("refused", "purge").stdout == "1 removed\n"
