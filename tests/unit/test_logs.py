"""One line an event, whatever the event holds; only bugs have a traceback."""

from __future__ import annotations

import io
import json
import logging
from types import SimpleNamespace
from typing import Any, Iterator, List

import pytest

from tests.unit.observe.test_metrics import ended, retried
from worker import logs
from worker.errors import DeadLetter, ImageNotFound
from worker.jobs.outcome import Outcome

RESULT = {"people": [1, 2], "timings_ms": {"decode": 3.1, "net": 95.0, "total": 99.0}}


class Log:
    """A root logger as Celery sets one up, and what was written to it."""

    def __init__(self, worker: str) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.logger = logging.Logger("root")
        self.logger.addHandler(self.handler)
        logs.dress(self.logger, worker)

    def handle(self, name: str, level: int, message: str, *args: Any, **kwargs: Any) -> List[str]:
        record = logging.Logger(name).makeRecord(name, level, "", 0, message, args, kwargs.get("exc_info"))
        record.__dict__.update(kwargs.get("extra", {}))
        self.logger.handle(record)
        return self.stream.getvalue().splitlines()


@pytest.fixture(params=["text", "json"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setenv("POSE_LOG", request.param)
    log = Log("gpu3@here")
    logs.logger.addHandler(log.handler)
    logs.logger.setLevel(logging.INFO)
    yield log
    logs.logger.removeHandler(log.handler)
    logs.logger.setLevel(logging.NOTSET)


def lines(log: Log) -> List[str]:
    return log.stream.getvalue().splitlines()


def as_json(monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setenv("POSE_LOG", "json")
    log = Log("gpu3@here")
    monkeypatch.setattr(logs.logger, "handlers", [log.handler])
    monkeypatch.setattr(logs.logger, "level", logging.INFO)
    return log


def test_a_job_is_one_line_with_all_that_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log = as_json(monkeypatch)
    logs.tell(ended("SUCCESS", RESULT, attempt=2))
    logs.tell(ended("FAILURE", ImageNotFound("There is nothing at '/a.jpg'."), attempt=1))
    logs.tell(ended("IGNORED", retried(), attempt=1, pause_s=1.5))
    logs.tell(ended("FAILURE", DeadLetter("Job 1 was tried 5 times in vain."), attempt=5))
    done, failed, again, dead = map(json.loads, lines(log))
    assert (done["event"], done["job_id"], done["image"], done["attempt"]) == ("job.succeeded", "1", "/a.jpg", 2)
    assert (done["people"], done["timings_ms"], done["level"]) == (2, RESULT["timings_ms"], "info")
    assert done["worker"] == "gpu3@here"
    assert (failed["event"], failed["error"], failed["level"]) == ("job.failed", "ImageNotFound", "info")
    assert failed["reason"] == "There is nothing at '/a.jpg'."
    assert (again["event"], again["error"], again["pause_s"]) == ("job.retried", "DeviceLost", 1.5)
    assert "is tried again in 1.500 s" in again["message"]
    assert (dead["event"], dead["attempt"], dead["level"]) == ("job.dead", 5, "error")
    assert not any("exception" in line for line in (done, failed, again, dead))


def test_a_bug_has_its_traceback(log: Log) -> None:
    try:
        raise ZeroDivisionError("what nobody foresaw")
    except ZeroDivisionError as exc:
        logs.tell(ended("FAILURE", exc))
    assert "Traceback (most recent call last)" in log.stream.getvalue()


def test_an_image_s_name_cannot_forge_a_line(log: Log) -> None:
    outcome = ended("SUCCESS", RESULT)._replace(image="/a\n[2026-01-01: INFO] ✓ forged \x1b[31m\udcff.jpg")
    logs.tell(outcome)
    [line] = lines(log)
    assert "\x1b" not in line
    line.encode()  # nothing in it that a terminal or a file would refuse


def test_what_may_be_secret_in_a_url_is_not_told(log: Log) -> None:
    kwargs = {"image": "https://user:secret@example.org/a.jpg?signature=secret"}
    request = SimpleNamespace(id="1", kwargs=kwargs, retries=0, attempt=1)
    logs.tell(Outcome.of(request, "SUCCESS", RESULT, 0.03))
    assert "https://example.org/a.jpg" in log.stream.getvalue()
    assert "secret" not in log.stream.getvalue()


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
