"""Hundreds of hostile messages on a real queue: each ends typed or is kept among the refused; the worker goes on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import psutil
import pytest
import redis
from celery.states import READY_STATES

from tests.support import ROOT, clean_environ, wait_until
from tests.support.hostile_messages import arguments, hostile_messages, message
from worker.children import stop_child
from worker.client import PoseClient
from worker.errors import InvalidRequest
from worker.servers import Keys

pytestmark = pytest.mark.queue

QUEUE = "hostile"
UNACKED = Keys(QUEUE).unacked
PIDBOX = f"/0.{QUEUE}.celery.pidbox"


class Running:
    """A worker, and what its log says."""

    def __init__(self, child: subprocess.Popen, log: Path) -> None:
        self.child, self.log = child, log

    def memory(self) -> int:
        """Bytes that its parent holds."""
        return int(psutil.Process(self.child.pid).memory_info().rss)


@pytest.fixture(scope="module")
def image(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("allowed") / "bus.jpg"
    path.write_bytes((samples / "bus.jpg").read_bytes())
    return path


@pytest.fixture(scope="module")
def worker(broker: str, image: Path, start_worker: Callable[..., subprocess.Popen]) -> Iterator[Running]:
    log = image.parent / "worker.log"
    variables = {"POSE_QUEUE": QUEUE, "POSE_IMAGE_ROOTS": image.parent, "POSE_KEY_PREFIX": QUEUE}
    child = start_worker("cpu0", "--logfile", str(log), POSE_BROKER_URL=broker, POSE_ENGINE="null", **variables)
    yield Running(child, log)
    assert stop_child(child, grace_s=20) == 0


@pytest.fixture(scope="module")
def client(broker: str, worker: Running, image: Path) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=QUEUE, key_prefix=QUEUE) as client:
        assert client.submit(image, overlay=False).result(90).people == []
        yield client


def _refused(redis_client: redis.Redis) -> List[Dict[str, Any]]:
    return [json.loads(text) for text in redis_client.lrange(f"{QUEUE}:refused", 0, -1)]


def _end(client: PoseClient, job_id: str) -> Dict[str, Any]:
    """What is stored of a job that has ended; {} of one that has not."""
    text = client.app.backend.get(client.app.backend.get_key_for_task(job_id))
    stored: Dict[str, Any] = json.loads(text) if text else {}
    return stored if stored.get("status") in READY_STATES else {}


def test_each_ends_typed_or_is_kept_and_the_worker_goes_on(
    worker: Running, client: PoseClient, redis_client: redis.Redis, image: Path, seed: int
) -> None:
    hostile = hostile_messages(seed, "h")
    assert len(hostile) >= 300
    memory, said_before = worker.memory(), len(worker.log.read_text())
    honest = []
    for place, one in enumerate(hostile):
        redis_client.lpush(QUEUE, one.raw)
        if place % 50 == 0:
            honest.append(client.submit(image, overlay=False))
    assert [job.result(60).attempt for job in honest] == [1] * len(honest)

    open_ = {one.job_id: one for one in hostile if one.job_id is not None}
    ends: Dict[str, Dict[str, Any]] = {}

    def not_ended() -> List[str]:
        left = [job_id for job_id in open_ if ends.get(job_id, {}).get("status") != "FAILURE"]
        ends.update({job_id: _end(client, job_id) for job_id in left})
        return [job_id for job_id in left if ends[job_id].get("status") != "FAILURE"]

    with contextlib.suppress(AssertionError):
        wait_until(lambda: not not_ended(), 60)
    assert [(open_[job_id].name, ends[job_id]) for job_id in not_ended()] == []
    typed = {"InvalidRequest", "ImageNotFound", "ImageNotAllowed"}
    assert {
        (open_[job_id].name, end["result"]["exc_type"])
        for job_id, end in ends.items()
        if end["result"]["exc_type"] not in typed
    } == set()
    assert all(end["traceback"] is None for end in ends.values())
    wait_until(lambda: len(_refused(redis_client)) >= sum(one.job_id is None for one in hostile))

    assert worker.child.poll() is None
    wait_until(lambda: redis_client.hlen(UNACKED) == 0)
    assert redis_client.llen(QUEUE) == 0
    assert worker.memory() < memory + (100 << 20)
    assert 0 < redis_client.ttl(f"{QUEUE}:refused") <= 30 * 86_400
    assert "Traceback" not in worker.log.read_text()[said_before:]


def test_whoever_waits_for_a_refused_message_is_told(client: PoseClient, redis_client: redis.Redis) -> None:
    fields = message("told", arguments(), headers={"compression": "zlib"})
    redis_client.lpush(QUEUE, json.dumps(fields))
    with pytest.raises(InvalidRequest, match="compressed"):
        client.app.AsyncResult("told").get(30)


def test_a_refused_message_does_not_end_the_job_whose_id_it_bears(
    broker: str, client: PoseClient, redis_client: redis.Redis, image: Path
) -> None:
    with PoseClient(broker, queue="nobody-listens", key_prefix=QUEUE) as patient:
        job = patient.submit(image, job_id="victim")
        redis_client.lpush(QUEUE, json.dumps(message("victim", b"no body")))
        wait_until(lambda: any(entry["job_id"] == "victim" for entry in _refused(redis_client)))
        assert client.submit(image, overlay=False).result(30).people == []
        assert job.state == "PENDING"
        job.cancel()


def test_messages_of_one_tag_do_not_take_each_others_place(
    client: PoseClient, redis_client: redis.Redis, image: Path
) -> None:
    names = [f"tag-{number}" for number in range(12)]
    good = {name: message(name, [[], {"image": str(image), "options": {"overlay": False}}, {}]) for name in names}
    with redis_client.pipeline() as pipe:
        for fields in good.values():
            pipe.lpush(QUEUE, json.dumps(fields))
        pipe.execute()
    for name in names:
        assert client.app.AsyncResult(name).get(30)["people"] == []
    wait_until(lambda: redis_client.hlen(UNACKED) == 0 and redis_client.zcard(f"{UNACKED}_index") == 0)


_PUBLISHED = (
    *(b"", b"nonsense", b"7", b"{}", b"[]", b'{"properties": {}}', b'{"properties": {"delivery_tag": {}}}'),
    b"[" * 99_999,
    json.dumps(message("a", b"x" * 400_000)).encode(),
    json.dumps(message("a", {"method": "no_such"})).encode(),
    json.dumps(message("a", [7])).encode(),
    json.dumps(message("a", b"\x80", **{"content-type": "x"})).encode(),
)


def test_what_is_published_to_all_workers_ends_none(
    worker: Running, client: PoseClient, redis_client: redis.Redis, image: Path
) -> None:
    for published in _PUBLISHED:
        assert redis_client.publish(PIDBOX, published) >= 1
    assert client.submit(image, overlay=False).result(30).attempt == 1
    assert client.app.control.ping(timeout=5, limit=1)
    assert worker.child.poll() is None


@pytest.mark.long
def test_a_message_cannot_lift_the_workers_time_limits(
    broker: str, client: PoseClient, redis_client: redis.Redis, image: Path, start_worker: Callable
) -> None:
    limits = {"POSE_SOFT_TIME_LIMIT_S": 1, "POSE_HARD_TIME_LIMIT_S": 8, "POSE_MAX_ATTEMPTS": 1, "NULL_NET_MS": 6000}
    roots = {"POSE_QUEUE": "limited", "POSE_IMAGE_ROOTS": image.parent, "POSE_KEY_PREFIX": QUEUE}
    slow = start_worker("cpu5", POSE_BROKER_URL=broker, POSE_ENGINE="null", **limits, **roots)
    body = [[], {"image": str(image), "options": {"overlay": False}}, {}]
    fields = message("limitless", body, headers={"timelimit": [100, 100]})
    redis_client.lpush("limited", json.dumps(fields))
    with pytest.raises(Exception, match=r"took more than 1 s"):
        client.app.AsyncResult("limitless").get(60)
    assert stop_child(slow, grace_s=20) == 0


def test_the_refused_are_listed_and_removed(client: PoseClient, redis_client: redis.Redis, broker: str) -> None:
    def refused(*words: str) -> str:
        variables = {"POSE_BROKER_URL": broker, "POSE_QUEUE": QUEUE, "POSE_KEY_PREFIX": QUEUE}
        command = [sys.executable, "-m", "worker", "refused", *words]
        done = subprocess.run(
            command, cwd=ROOT, env={**clean_environ(), **variables}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    redis_client.lpush(QUEUE, b"one more")
    wait_until(lambda: any("one more" in entry["message"] for entry in _refused(redis_client)))
    rows = refused("list", "--json").splitlines()
    entry = next(row for row in map(json.loads, rows) if "one more" in row["message"])
    assert (entry["queue"], entry["job_id"], entry["bytes"]) == (QUEUE, None, 8)
    assert "it is not JSON" in entry["why"]
    redis_client.lpush(f"{QUEUE}:refused", b"\xff", b"{}", b"[]")
    assert "no entry" in refused("list")
    assert "removed" in refused("purge")
    assert refused("list") == "0 refused messages\n"


#: An errback of Celery's own, which would run the others within the slot, and make the set of running jobs a list.
RUNS_OTHERS = {
    "task": "celery.starmap",
    "immutable": True,
    "kwargs": {},
    "options": {},
    "args": [
        {"task": "celery.group"},
        [
            [
                [{"task": "x", "args": [], "kwargs": {}, "immutable": True, "options": {"queue": f"{QUEUE}:running"}}],
                [["t", None], None],
                "g",
                [],
            ]
        ],
    ],
}


@pytest.mark.parametrize("where", ["body", "header"])
def test_nothing_that_a_message_brings_along_is_run_here(
    client: PoseClient, redis_client: redis.Redis, image: Path, where: str
) -> None:
    job_id = f"runs-others-{where}"
    body = [[], {"image": "/nowhere/a.png"}, {"errbacks": [RUNS_OTHERS]} if where == "body" else None]
    headers = {} if where == "body" else {"errbacks": [RUNS_OTHERS], "callbacks": [RUNS_OTHERS]}
    redis_client.lpush(QUEUE, json.dumps(message(job_id, body, headers=headers)))
    wait_until(lambda: _end(client, job_id))
    wanted = "InvalidRequest" if where == "body" else "ImageNotAllowed"
    assert _end(client, job_id)["result"]["exc_type"] == wanted
    assert client.submit(image, overlay=False).result(60).people == []  # whose record is among those that run
    assert redis_client.type(f"{QUEUE}:running") in (b"none", b"zset")


def test_messages_for_later_are_not_held(worker: Running, client: PoseClient, redis_client: redis.Redis) -> None:
    memory = worker.memory()
    for number in range(200):
        padding = {"image": "/nowhere/a.png", "options": {"model": "x" * 150_000}}
        fields = message(f"later-{number}", [[], padding, None], headers={"eta": "2130-01-01T00:00:00"})
        redis_client.lpush(QUEUE, json.dumps(fields))
    wait_until(lambda: _end(client, "later-199"))
    assert "not to be done before" in str(_end(client, "later-199")["result"]["exc_message"])
    assert worker.memory() < memory + (100 << 20)
