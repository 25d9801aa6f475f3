"""The line about an attempt that has ended, whatever the job's message holds; only bugs have a traceback."""

from __future__ import annotations

import json
import logging

import pytest

from tests.support.ends import ended
from tests.support.log import Log
from worker.errors import DeadLetter, DeviceLost, ImageNotFound
from worker.observe import job_log
from worker.observe.job_log import log_end

RESULT = {"people": [1, 2], "timings_ms": {"decode": 3.1, "net": 95.0, "total": 99.0}}


def opened(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log("gpu3@here")
    monkeypatch.setattr(job_log.logger, "handlers", [log.handler])
    monkeypatch.setattr(job_log.logger, "level", logging.INFO)
    return log


@pytest.fixture(params=["text", "json"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setenv("POSE_LOG", request.param)
    return opened(monkeypatch)


def test_a_job_is_one_line_with_all_that_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSE_LOG", "json")
    log = opened(monkeypatch)
    log_end(ended("succeeded", result=RESULT, attempt=2))
    log_end(ended("failed", error=ImageNotFound("There is nothing at '/a.jpg'.")))
    log_end(ended("retried", error=DeviceLost("gone"), pause_s=1.5))
    log_end(ended("dead", error=DeadLetter("Job 1 was tried 5 times in vain."), attempt=5))
    done, failed, again, dead = map(json.loads, log.lines)
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
        log_end(ended("failed", error=exc))
    assert "Traceback (most recent call last)" in log.stream.getvalue()


def test_an_image_s_name_cannot_forge_a_line(log: Log) -> None:
    log_end(ended("succeeded", result=RESULT, image="/a\n[2026-01-01: INFO] ✓ forged \x1b[31m\udcff.jpg"))
    [line] = log.lines
    assert "\x1b" not in line
    line.encode()  # nothing in it that a terminal or a file would refuse


def test_what_may_be_secret_in_a_url_is_not_told(log: Log) -> None:
    log_end(ended("succeeded", result=RESULT, image="https://user:secret@example.org/a.jpg?signature=secret"))
    assert "https://example.org/a.jpg" in log.stream.getvalue()
    assert "secret" not in log.stream.getvalue()
