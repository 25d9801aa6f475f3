"""What is wrong with the settings is told in one sentence each, by the check as at the start, and no secret with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.support import ROOT, clean_environ
from worker.children import start_child, stop_child
from worker.process.preflight import wrong

BROKER = {"POSE_BROKER_URL": "redis://127.0.0.1:1/0"}


def run(command: List[str], **variables: Any) -> subprocess.CompletedProcess:
    environment = {**clean_environ(), **{name: str(value) for name, value in variables.items()}}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("POSE_BROKER_URL", "", "POSE_BROKER_URL is not set; set it to your Redis"),
        ("POSE_BROKER_URL", "redis:/user:s3cret@host", "POSE_BROKER_URL is '***@host': is no URL"),
        ("POSE_BROKER_URL", "http://user:s3cret@host", "POSE_BROKER_URL is 'http://user:***@host': must begin with"),
        ("POSE_BROKER_URL", "sentinel://h?sentinel_password=s3cret", "sentinel_password=***': a sentinel:// URL must"),
        ("POSE_IMAGE_ROOTS", "/nowhere", "POSE_IMAGE_ROOTS is '/nowhere': there is no folder '/nowhere'"),
        ("POSE_IMAGE_ROOTS", "http://a.example/in", "POSE_IMAGE_ROOTS has 'http://a.example/in'"),
        ("POSE_MODEL", "none", "POSE_MODEL is 'none': There is no net in"),
        ("POSE_MODELS", "none", "POSE_MODELS is 'none': There is no net in"),
        ("POSE_HAND_NET", "none", "POSE_HAND_NET is 'none': There is no net in"),
        ("POSE_HAND_NET", "a/b", "POSE_HAND_NET is 'a/b': must be letters, digits"),
        ("POSE_FACE_NET", "mobilenet_thin", "has the skeleton coco_18, so it finds no face"),
        ("POSE_DEVICE", "cuda:7", "There is no GPU 7, which POSE_DEVICE asks for"),
        (
            "POSE_HEARTBEAT_DIR",
            "/etc/passwd/beats",
            "POSE_HEARTBEAT_DIR is '/etc/passwd/beats', which this user cannot write to",
        ),
        (
            "POSE_OVERLAY_STORE",
            "file:///etc/passwd/x",
            "POSE_OVERLAY_STORE is '/etc/passwd/x', which this user cannot write to",
        ),
        ("POSE_HEARTBEAT_DIR", "/etc/passwd/x", "POSE_HEARTBEAT_DIR is '/etc/passwd/x', which this user cannot"),
        ("POSE_OVERLAY_STORE", "file:///etc/passwd/x", "POSE_OVERLAY_STORE is '/etc/passwd/x', which this user cannot"),
        ("POSE_BROKER_URL", "redis://u:s3c/ret@host", "is 'redis://u:***@host': its port is no number"),
        ("POSE_BROKER_URL", "redis://host:6379/pose", "its database is 'pose' instead of a number"),
        ("POSE_OVERLAY_STORE", "overlays", "POSE_OVERLAY_STORE is 'overlays': must be redis://…, file:///folder or"),
        ("POSE_OVERLAY_STORE", "file://data/x", "POSE_OVERLAY_STORE is 'file://data/x': must be redis://…, file:///"),
        ("POSE_OVERLAY_STORE", f"file:///{'x' * 300}", "which this user cannot write to"),
        ("POSE_OVERLAY_STORE", "redis://h:x/0", "POSE_OVERLAY_STORE is 'redis://h:x/0': its port is no number"),
        ("POSE_IMAGE_ROOTS", "file://data", "POSE_IMAGE_ROOTS is 'file://data': a file:// URL has three slashes"),
        ("POSE_IMAGE_ROOTS", "file:///nowhere", "POSE_IMAGE_ROOTS is 'file:///nowhere': there is no folder '/nowhere'"),
        (
            "POSE_IMAGE_ROOTS",
            "https://u:s3cret@host/x",
            "POSE_IMAGE_ROOTS is 'https://u:***@host/x': there is no folder",
        ),
        ("POSE_IMAGE_ROOTS", ":", "POSE_IMAGE_ROOTS is ':': allows no image; name a folder"),
        ("POSE_MODELS_DIR", "/nowhere", "POSE_MODELS_DIR is '/nowhere': there is no such folder"),
        ("POSE_QUEUES", "redis://u:s3cret@h", "POSE_QUEUES is 'redis://u:***@h': must be letters, digits,"),
        ("POSE_PRIVATE_HOSTS", "http://intranet", "is 'http://intranet': must be the name of a host, or an address"),
        ("POSE_METRICS_BIND", "eth0:9100", "POSE_METRICS_BIND is 'eth0:9100': must be the name of a host"),
        ("POSE_NET_TIMEOUT_S", "inf", "POSE_NET_TIMEOUT_S is 'inf': input should be a finite number"),
        ("POSE_LOG", "x" * 5000, "…': input should be 'text' or 'json'"),
        ("POSE_WEBHOOK_SECRET", "short", "POSE_WEBHOOK_SECRET is '***': must have 16 characters or more"),
        ("POSE_GRACE_S", "0", "POSE_GRACE_S is '0': input should be greater than 0"),
        ("POSE_LOG", "xml", "POSE_LOG is 'xml': input should be 'text' or 'json'"),
        ("POSE_METRICS_PORT", "70000", "POSE_METRICS_PORT is '70000': input should be less than or equal to 65535"),
    ],
)
def test_one_sentence_names_the_variable_and_what_is_wrong(
    thin_net: Path, variable: str, value: str, told: str
) -> None:
    [sentence] = wrong({**BROKER, variable: value})
    assert told in sentence
    assert "\n" not in sentence
    assert "s3c" not in sentence
    assert len(sentence) < 600
    assert "s3cret" not in sentence


def test_all_of_it_is_told_at_once() -> None:
    told = wrong({**BROKER, "POSE_SLOTS": "many", "POSE_SLOT": "1", "POSE_LOG": "xml"})
    assert [sentence.split()[0] for sentence in told] == ["POSE_SLOT", "POSE_SLOTS", "POSE_LOG"]


def test_traces_without_opentelemetry_are_refused(monkeypatch: pytest.MonkeyPatch, thin_net: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    [sentence] = wrong({**BROKER, "POSE_TRACING": "1"})
    assert "deploy/requirements-otel.txt" in sentence


def test_the_check_says_what_the_start_says(thin_net: Path) -> None:
    told = "POSE_IMAGE_ROOTS is '/nowhere': there is no folder '/nowhere'."
    variables: Dict[str, Any] = {**BROKER, "POSE_IMAGE_ROOTS": "/nowhere"}
    check = run([sys.executable, "-m", "worker", "check", "--config"], **variables)
    assert (check.returncode, check.stderr) == (1, f"{told}\n")
    start = run([sys.executable, "-m", "celery", "--app", "worker", "worker"], **variables)
    assert (start.returncode, start.stderr.splitlines()[-1]) == (1, f"pose worker: {told}")
    malformed = run([sys.executable, "-m", "celery", "--app", "worker", "worker"], **BROKER, POSE_SLOTS="many")
    assert malformed.returncode == 1
    assert malformed.stderr.startswith("pose worker: POSE_SLOTS is 'many': ")
    assert "Traceback" not in start.stderr + malformed.stderr


def test_settings_that_are_right_are_said_to_be(thin_net: Path) -> None:
    done = run([sys.executable, "-m", "worker", "check", "--config"], **BROKER)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.queue
def test_a_broker_that_is_away_is_waited_for_with_a_line_each_time(thin_net: Path, tmp_path: Path) -> None:
    from worker.process.fleet import worker_command

    variables = {
        "POSE_BROKER_URL": "redis://:s3cret@127.0.0.1:1/0",
        "POSE_ENGINE": "null",
        "POSE_SLOTS": "1",
        "POSE_WARM_SIZES": "368x280",
        "POSE_HEARTBEAT_DIR": str(tmp_path),
        "POSE_METRICS_PORT": "",
    }
    log = tmp_path / "log"
    with log.open("wb") as stream:
        worker = start_child(
            worker_command("cpu0"), env={**clean_environ(), **variables}, cwd=ROOT, stdout=stream, stderr=stream
        )
    try:
        deadline = time.monotonic() + 60
        while log.read_text().count("Trying again in") < 2 and time.monotonic() < deadline:
            assert worker.poll() is None
            time.sleep(0.1)
    finally:
        status = stop_child(worker, grace_s=10)
    text = log.read_text()
    lines = [line for line in text.splitlines() if "Cannot connect" in line]
    assert len(lines) >= 2
    assert "redis://:**@127.0.0.1:1/0: " in lines[0]
    assert "Trying again in 2.00 seconds... (1)" in lines[0]
    assert "Traceback" not in text
    assert "s3cret" not in text
    assert status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["log"]  # the heartbeat has gone with the worker


@pytest.mark.parametrize("words", ["status", "dead list", "refused list"])
def test_commands_without_a_redis_say_so_in_one_sentence(words: str) -> None:
    command = [sys.executable, "-m", "worker", *words.split()]
    running = [
        subprocess.Popen(command, cwd=ROOT, env={**clean_environ(), **told}, stderr=subprocess.PIPE, text=True)
        for told in ({}, {"POSE_BROKER_URL": "redis://:s3cret@127.0.0.1:1/0"})
    ]
    unset, away = (process.communicate(timeout=100)[1] for process in running)
    assert [process.returncode for process in running] == [2, 2]
    assert unset.startswith("pose worker: POSE_BROKER_URL is not set")
    assert away.startswith("pose worker: The Redis redis://:***@127.0.0.1:1/0 does not answer")
    assert (unset.count("\n"), away.count("\n")) == (1, 1)
