"""What a stranger writes to Redis where anybody may: it is reported, and nobody stops or hangs for it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest
import redis

from tests.support import wait_until
from worker.children import stop_child
from worker.client import PoseClient
from worker.errors import InvalidRequest, JobFailed
from worker.jobs.ledger import Message

pytestmark = pytest.mark.queue


class Running:
    """A worker, its client, and its log."""

    def __init__(self, client: PoseClient, image: Path, log: Path) -> None:
        self.client, self.image, self._log = client, image, log

    def does_a_job(self) -> bool:
        return self.client.submit(self.image, overlay=False).result(30).people == []

    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture(scope="module")
def running(
    broker: str, samples: Path, tmp_path_factory: pytest.TempPathFactory, start_worker: Callable[..., subprocess.Popen]
) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("log") / "worker.log"
    variables = {"POSE_BROKER_URL": broker, "POSE_ENGINE": "null", "POSE_IMAGE_ROOTS": samples}
    with redis.Redis.from_url(broker) as stranger:
        stranger.set("pose", "no list")  # the worker is to start beside it
        child = start_worker("cpu0", "--logfile", str(log), **variables)
        wait_until(lambda: log.exists() and "No messages can be taken" in log.read_text(), 90)
        stranger.delete("pose")
    with PoseClient(broker) as client:
        found = Running(client, samples / "bus.jpg", log)
        assert found.does_a_job()
        yield found
        assert found.does_a_job()
    assert stop_child(child, grace_s=20) == 0


def test_a_queue_that_is_no_list(running: Running, redis_client: redis.Redis) -> None:
    said = running.log().count("No messages can be taken")
    for name in ("pose", "pose\x06\x165"):
        redis_client.set(name, "no list", ex=4)
        wait_until(lambda name=name: not redis_client.exists(name), 10)
        assert running.does_a_job()
    # Said now and then, not at every try.
    assert running.log().count("No messages can be taken") <= said + 2
    assert "Traceback" not in running.log()


@pytest.mark.parametrize("name", ["running", "later", "dead", "waiting:pose", "calls", "reconciler", "quarantine"])
def test_a_key_of_ours_of_another_type_is_replaced(running: Running, redis_client: redis.Redis, name: str) -> None:
    key = f"pose:{name}"
    redis_client.delete(key)
    redis_client.rpush(key, "x")
    callback = "shop.posed" if name == "calls" else None
    job = running.client.submit(running.image, overlay=False, callback=callback)
    assert job.result(30).people == []
    if name != "quarantine":  # which is only looked at when a job was lost twice
        wait_until(lambda: redis_client.type(key) != b"list")
    redis_client.delete(key)


def test_a_record_that_is_none(running: Running, redis_client: redis.Redis) -> None:
    redis_client.set("pose:job:odd", "no hash")
    assert running.client.submit(running.image, overlay=False, job_id="odd").result(30).people == []


def test_a_record_whose_fields_make_no_sense_ends_typed(running: Running, redis_client: redis.Redis) -> None:
    digest = Message("pose", kwargs={"image": str(running.image), "options": {"overlay": False}}).digest
    redis_client.hset(
        "pose:job:mad", mapping={"state": "waiting", "list": "pose", "attempts": "many", "digest": digest}
    )
    job = running.client.app.send_task(
        "pose.estimate",
        kwargs={"image": str(running.image), "options": {"overlay": False}},
        task_id="mad",
        queue="pose",
    )
    with pytest.raises(InvalidRequest, match="damaged"):
        job.get(30)


def test_a_call_that_is_none_ends_its_job_typed(running: Running, redis_client: redis.Redis) -> None:
    redis_client.set("pose:call:mute", "no hash")
    kwargs = {"image": str(running.image), "callback": {"task": "shop.posed"}}
    job = running.client.app.send_task("pose.estimate", kwargs=kwargs, task_id="mute", queue="pose")
    with pytest.raises(JobFailed, match="not from a worker"):
        job.get(30)


def test_what_the_reconciler_looks_at_does_not_stop_it(running: Running, redis_client: redis.Redis) -> None:
    """Sets full of rubbish, records that lead elsewhere: jobs that were lost are still found."""
    for name in ("running", "later", "waiting:pose"):
        redis_client.zadd(f"pose:{name}", {bytes([byte]) + b"\xff": 0 for byte in range(250)})
    redis_client.hset("pose:job:mad-2", mapping={"state": "waiting", "list": "pose", "resent": "x", "message": "{}"})
    elsewhere = json.dumps({"queue": "pose:running", "kwargs": {"image": "/a"}})
    redis_client.hset("pose:job:mad-3", mapping={"state": "waiting", "list": "pose", "message": elsewhere})
    redis_client.zadd("pose:waiting:pose", {"mad-2": 0, "mad-3": 0})
    lost = Message("pose", kwargs={"image": str(running.image), "options": {"overlay": False}})
    running.client._ledger.record("lost", lost)  # and its message was never sent
    assert running.client.job("lost").result(60).people == []
    wait_until(lambda: redis_client.zcard("pose:waiting:pose") == 0, 30)
    assert redis_client.type("pose:running") != b"list"


@pytest.mark.parametrize("name", ["unacked", "unacked_index", "_kombu.binding.pose"])
def test_a_key_of_celerys_of_another_type_is_survived(running: Running, redis_client: redis.Redis, name: str) -> None:
    redis_client.delete(name)
    redis_client.rpush(name, "x")
    job = running.client.submit(running.image, overlay=False)
    with contextlib.suppress(TimeoutError):
        job.result(3)
    redis_client.delete(name)
    assert running.client.job(job.id).result(30).people == []


def test_a_list_of_refused_messages_that_is_none(running: Running, redis_client: redis.Redis) -> None:
    redis_client.set("pose:refused", "no list")
    redis_client.lpush("pose", "no message")
    wait_until(lambda: redis_client.llen("pose") == 0 and redis_client.type("pose:refused") == b"list", 20)
    assert running.does_a_job()
