"""What Prometheus reads of a board, and what it reads while Redis is away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.support import wait_until
from tests.support.brokers import free_port
from tests.support.ends import ended
from tests.support.metrics import get, scrape
from worker.device import board as boards
from worker.device.board import Board, now
from worker.device.pin import Device
from worker.errors import DeviceLost, ImageNotFound, SettingsError
from worker.jobs.stopwatch import Lap
from worker.observe.metrics import Exporter, number
from worker.process.life import Life
from worker.settings import Settings, read_settings


def configured(**more: Any) -> Settings:
    variables = {"metrics_bind": "127.0.0.1", "broker_url": "redis://127.0.0.1:1/0", **more}
    return read_settings({f"POSE_{name.upper()}": str(value) for name, value in variables.items()})


@pytest.fixture
def board() -> Board:
    board = Board.create()
    board.net.pid, board.net.state, board.net.beat = os.getpid(), boards.READY, now()
    return board


@pytest.fixture
def exporter(board: Board) -> Iterator[Exporter]:
    exporter = Exporter(configured(metrics_port=free_port()), "cpu0@here", Device(), board, 2)
    yield exporter
    exporter.stop()


def test_jobs_are_counted_by_what_they_ended_in(
    board: Board, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threading.Thread.start", lambda self: None)
    monkeypatch.setattr("signal.pthread_sigmask", lambda *_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    life = Life(board, 1)
    timings = {"decode": 4.0, "net": 90.0, "total": 99.0}
    laps = (Lap("decode", 1.0, 1.004), Lap("net", 1.004, 1.094), Lap("rest", 2, 3))
    for people in ([], [1], [1, 2, 3]):
        life.begin()
        result = {"timings_ms": timings, "people": people}
        life.end(ended("succeeded", result=result, waited_s=7.0, laps=laps))
    life.end(ended("failed", error=ImageNotFound("There is nothing at /a.jpg.")))
    life.end(ended("failed", error=ZeroDivisionError()))
    life.end(ended("retried", error=DeviceLost("gone")))
    life.end(ended("ignored"))
    board.worker.revoked += 1
    life.begin()
    Life(board, 1)  # the slot died in the middle of a job, and this is the next one
    monkeypatch.undo()
    samples = scrape(exporter.port)
    outcomes = {
        "succeeded": 3,
        "failed": 2,
        "retried": 1,
        "ignored": 1,
        "dead": 0,
        "continued": 0,
        "lost": 1,
        "revoked": 1,
    }
    assert {name: get(samples, "pose_jobs_total", outcome=name) for name in outcomes} == outcomes
    errors = {"ImageNotFound": 1, "other": 1, "DeviceLost": 1}
    assert {name: get(samples, "pose_job_errors_total", error=name) for name in errors} == errors
    assert get(samples, "pose_slot_restarts_total") == 1
    assert get(samples, "pose_stage_seconds_count", stage="net") == 3
    assert get(samples, "pose_stage_seconds_sum", stage="net") == pytest.approx(0.27)
    assert get(samples, "pose_stage_seconds_bucket", stage="net", le="0.05") == 0
    assert get(samples, "pose_stage_seconds_bucket", stage="net", le="0.1") == 3
    assert get(samples, "pose_people_per_image_bucket", le="0.0") == 1
    assert get(samples, "pose_people_per_image_sum") == 4
    assert get(samples, "pose_job_attempts_count") == 5
    assert get(samples, "pose_job_seconds_count") == 6
    assert get(samples, "pose_job_wait_seconds_sum") == 21


def test_a_redis_that_is_away_leaves_the_rest_to_be_read(exporter: Exporter) -> None:
    samples = scrape(exporter.port)
    assert get(samples, "pose_broker_up") == 0
    assert get(samples, "pose_worker_ready") == 0
    assert not any(name == "pose_queue_depth" for name, _ in samples)
    exporter.ready()
    samples = scrape(exporter.port)
    assert get(samples, "pose_worker_ready") == 1
    assert get(samples, "pose_net_ready") == 1
    assert get(samples, "pose_resident_memory_bytes", process="net") > 1e6


def test_a_port_that_is_taken_is_named(exporter: Exporter, board: Board) -> None:
    with pytest.raises(SettingsError, match=f"POSE_METRICS_PORT is {exporter.port - 3}: gpu3@here cannot listen on"):
        Exporter(configured(metrics_port=exporter.port - 3), "gpu3@here", Device(), board, 1)


@pytest.mark.parametrize(
    ("name", "expected"), [("gpu3@host7", 3), ("gpu12@h", 12), ("cpu0@h", 0), ("local@host2", 0), ("gpu1-2@h", 2)]
)
def test_workers_of_one_host_have_ports_of_their_own(name: str, expected: int) -> None:
    assert number(name) == expected


def test_the_queue_is_looked_at_by_length_and_age(broker: str, board: Board, redis_client: Any, tmp_path: Path) -> None:
    redis_client.lpush("backlog", "newer", "older")
    redis_client.lpush("backlog\x06\x165", "urgent")
    redis_client.zadd("backlog-test:dead", {"a": 1, "b": 2})
    seconds, _ = redis_client.time()
    redis_client.zadd("backlog-test:waiting:backlog", {"a": seconds - 100})
    settings = configured(
        metrics_port=free_port(), broker_url=broker, queue="backlog", key_prefix="backlog-test", heartbeat_dir=tmp_path
    )
    exporter = Exporter(settings, "cpu0@here", Device(), board, 1)
    try:
        wait_until(lambda: get(scrape(exporter.port), "pose_broker_up"))
        samples = scrape(exporter.port)
        assert get(samples, "pose_queue_depth", queue="backlog") == 4 - 1
        assert 100 <= get(samples, "pose_queue_oldest_seconds", queue="backlog") < 110
        assert get(samples, "pose_dead_letters") == 2
        redis_client.zrem("backlog-test:waiting:backlog", "a")  # of the rest, only how long they have been seen
        wait_until(lambda: 0 < get(scrape(exporter.port), "pose_queue_oldest_seconds", queue="backlog") < 20)
    finally:
        exporter.stop()
        redis_client.delete("backlog", "backlog\x06\x165", "backlog-test:dead", "backlog-test:waiting:backlog")
