"""One line an event, whatever the event holds; only bugs have a traceback."""

from __future__ import annotations

import json
import logging

import pytest

from tests.support.log import Log
from worker import logs


@pytest.fixture(params=["text", "json"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setenv("POSE_LOG", request.param)
    return Log("gpu3@here")


def test_what_celery_tells_of_jobs_and_of_others_faults_is_thinned(log: Log) -> None:
    told = {"extra": {"data": {"name": "pose.estimate"}}}
    assert log.handle("celery.app.trace", logging.INFO, "Task succeeded", **told) == []
    assert log.handle("celery.worker.strategy", logging.INFO, "Task received", **told) == []
    try:
        raise ConnectionError("gone")
    except ConnectionError as exc:
        info = (ConnectionError, exc, exc.__traceback__)
    [line] = log.handle(
        "celery.worker.consumer.consumer", logging.ERROR, "Cannot connect:\n%s.\n\nTrying again.", "gone", exc_info=info
    )
    assert "Cannot connect: gone. Trying again." in line


def test_last_words_are_a_line_of_the_same_kind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    logs.last_words("There is no GPU 7.")
    assert capsys.readouterr().err == "pose worker: There is no GPU 7.\n"
    monkeypatch.setenv("POSE_LOG", "json")
    logs.last_words("There is no GPU 7.", "gpu7@here")
    assert json.loads(capsys.readouterr().err)["message"] == "There is no GPU 7."
