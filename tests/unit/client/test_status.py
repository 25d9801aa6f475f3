"""Where a job is, in every state; once more; and that nobody waits in silence. The worker is played by the test."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shlex
import subprocess
import sys
import time
import uuid
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
import redis

from tests.support import ROOT, clean_environ
from tests.support.documents import example
from worker.client import JobStatus, PoseClient, silence
from worker.client.aio import AsyncPoseClient
from worker.client.status import status_of
from worker.errors import DeadLetter, ImageNotFound, InvalidRequest, PoseError
from worker.jobs.ledger import Ledger, Message, ResultKey
from worker.jobs.where import Where
from worker.servers import Keys, queue_list

pytestmark = pytest.mark.queue

WHERE = {"worker": "gpu3@host", "device": "cuda:0", "pid": 7}


@pytest.fixture
def queue() -> str:
    """A queue that no other test sends to."""
    return f"status-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client(broker: str, queue: str) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=queue) as client:
        yield client


@pytest.fixture
def serving(redis_client: redis.Redis, queue: str) -> Iterator[None]:
    """A worker that takes jobs."""
    redis_client.set(Keys().serves(queue), "gpu3@host", ex=60)
    yield
    redis_client.delete(Keys().serves(queue))


class Worker:
    """Does to a job what a worker does."""

    def __init__(self, client: PoseClient, queue: str) -> None:
        self.client, self.queue, self.ledger = client, queue, client._ledger

    def stored(self, job_id: str, error: Optional[Exception] = None) -> ResultKey:
        return self.client.app.backend.encoded(job_id, error, "FAILURE" if error else "STARTED", ttl_s=60)

    def begin(self, job_id: str) -> None:
        message = Message(self.queue, kwargs={"image": "/a.jpg", "options": {}})
        begun = self.ledger.begin(job_id, "holder", message, WHERE, 3, self.stored(job_id))
        assert begun.verdict == "begun"

    def put_off(self, job_id: str, why: str, pause_s: float = 60.0) -> None:
        assert self.ledger.later(job_id, "holder", why, pause_s, 3, self.stored(job_id)) == "later"

    def end(self, job_id: str, error: PoseError) -> None:
        state = "dead" if isinstance(error, DeadLetter) else "failed"
        assert self.ledger.finish(job_id, state, self.stored(job_id, error))


@pytest.fixture
def worker(client: PoseClient, queue: str) -> Worker:
    return Worker(client, queue)


def test_a_job_that_waits_says_how_many_are_before_it(client: PoseClient, queue: str, serving: None) -> None:
    late = client.submit("/a.jpg", priority=5)
    jobs = [client.submit("/a.jpg") for _ in range(3)]
    assert [job.status().before for job in jobs] == [0, 1, 2]
    found = late.status()
    assert (found.state, found.queue, found.before, found.attempt) == ("waiting", queue, 3, 0)  # 0 goes first
    assert found.served
    assert abs((found.since or 0) - time.time()) < 60
    assert str(found) == f"Job {late.id} waits on queue {queue!r}, with about 3 before it."


def test_a_job_that_nobody_takes_says_so(client: PoseClient, queue: str) -> None:
    job = client.submit("/a.jpg")
    assert not job.status().served
    with pytest.raises(TimeoutError) as caught:
        job.result(0.05)
    assert f"waits on queue {queue!r}" in str(caught.value)
    assert f"No worker takes jobs from queue {queue!r}" in str(caught.value)
    assert "python -m worker fleet" in str(caught.value)


def test_a_job_in_work_says_where(client: PoseClient, worker: Worker) -> None:
    job = client.submit("/a.jpg")
    worker.begin(job.id)
    found = job.status()
    assert (found.state, found.attempt, found.worker, found.before) == ("running", 1, "gpu3@host", None)
    assert abs((found.since or 0) - time.time()) < 60
    assert "is in work: attempt 1 since 20" in str(found)
    with pytest.raises(TimeoutError, match="in work: attempt 1"):
        job.result(0.05)


def test_a_job_that_is_tried_again_says_why_and_when(client: PoseClient, worker: Worker) -> None:
    job = client.submit("/a.jpg")
    worker.begin(job.id)
    worker.put_off(job.id, "StorageUnavailable: the store is away.")
    found = job.status()
    assert (found.state, found.attempt, found.why) == ("retried", 1, "StorageUnavailable: the store is away.")
    assert 30 < (found.next_at or 0) - time.time() <= 60
    assert str(found).endswith("after attempt 1: StorageUnavailable: the store is away.")


@pytest.mark.parametrize(
    ("error", "state"),
    [(ImageNotFound("/a.jpg is not there."), "failed"), (DeadLetter("Tried in vain."), "dead")],
)
def test_a_job_that_has_ended_says_how(client: PoseClient, worker: Worker, error: PoseError, state: str) -> None:
    job = client.submit("/a.jpg")
    worker.begin(job.id)
    worker.end(job.id, error)
    found = job.status()
    assert (found.state, found.why, found.worker) == (state, f"{type(error).__name__}: {error}", "gpu3@host")
    assert str(found) == f"Job {job.id} is {state}: {type(error).__name__}: {str(error)[:-1]}."


def test_a_cancelled_job_and_one_that_nobody_knows(client: PoseClient) -> None:
    job = client.submit("/a.jpg")
    job.cancel()
    assert job.status().state == "revoked"
    assert client.job("nobody-knows").status() == JobStatus("nobody-knows", "unknown")
    assert "no record" in str(client.job("nobody-knows").status())


def test_on_rabbitmq_nobody_knows_how_many_are_before(client: PoseClient) -> None:
    where = client._ledger.where(client.submit("/a.jpg").id)
    assert where.before == 0
    assert status_of("j", where, None, "amqp://h//").before is None


@pytest.mark.parametrize(
    "fields", [{"list": "\x00"}, {"sent": "soon"}, {"tries": "x"}, {"attempt:1": "{", "tries": "1"}]
)
def test_a_record_that_makes_no_sense_is_shown_as_far_as_it_does(
    client: PoseClient, worker: Worker, redis_client: redis.Redis, fields: Dict[str, str]
) -> None:
    job = client.submit("/a.jpg")
    worker.begin(job.id)
    redis_client.hset(Keys().job(job.id), mapping=fields)
    assert job.status().state == "running"
    assert Where.of([""] * 18).state == ""


@pytest.mark.parametrize(
    "error", [ImageNotFound("It is not there."), DeadLetter("Tried in vain.")], ids=["failed", "dead"]
)
def test_what_has_failed_is_done_once_more_under_its_id(
    client: PoseClient, worker: Worker, redis_client: redis.Redis, queue: str, error: PoseError
) -> None:
    job = client.submit("/a.jpg", priority=4, expires=3600)
    redis_client.delete(queue_list(queue, 4))
    worker.begin(job.id)
    worker.end(job.id, error)
    job.retry()
    assert (job.status().state, job.state) == ("waiting", "PENDING")
    message = json.loads(redis_client.rpop(queue_list(queue, 4)))
    assert (message["headers"]["id"], message["headers"]["expires"]) == (job.id, None)
    worker.begin(job.id)
    assert job.status().attempt == 1  # it has all its attempts again


def test_what_was_cancelled_is_done_after_all(client: PoseClient, redis_client: redis.Redis, queue: str) -> None:
    job = client.submit("/a.jpg")
    job.cancel()
    job.retry()
    assert job.status().state == "waiting"
    assert redis_client.llen(queue) == 2  # of which the second one that is taken is superfluous


def test_what_has_not_ended_or_has_a_result_is_not_done_again(client: PoseClient, worker: Worker) -> None:
    waiting, done = client.submit("/a.jpg"), client.submit("/b.jpg")
    worker.ledger.finish(done.id, "done", worker.stored(done.id))
    for job in (waiting, done, client.job("nobody-knows")):
        with pytest.raises(InvalidRequest, match="cannot be done again"):
            job.retry()


def test_whoever_waits_long_is_warned(client: PoseClient, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.client.sync.SILENT_S", 0.05)
    with caplog.at_level(logging.WARNING), pytest.raises(TimeoutError):
        client.submit("/a.jpg").result(0.2)
    assert [record.message for record in caplog.records if "No worker takes jobs" in record.message] != []


def test_the_same_with_asyncio(broker: str, queue: str, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.client.aio.SILENT_S", 0.05)

    async def run() -> None:
        async with AsyncPoseClient(broker, queue=queue) as client:
            job = await client.submit("/a.jpg")
            assert (await job.status()).state == "waiting"
            with pytest.raises(TimeoutError, match="No worker takes jobs"):
                await job.result(0.2)
            await job.cancel()
            await job.retry()
            assert (await job.status()).state == "waiting"

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "No worker takes jobs" in caplog.text


def test_silence_is_broken_once(client: PoseClient, monkeypatch: pytest.MonkeyPatch) -> None:
    said: List[str] = []
    monkeypatch.setattr(silence, "SILENT_S", 0.0)
    quiet = silence.Silence(client, said.append)
    for _ in range(3):
        quiet.look()
    assert len(said) == 1
    assert "start one" in said[0]


def test_there_is_no_silence_to_break_where_a_worker_serves(
    client: PoseClient, serving: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SILENT_S", 0.0)
    silence.Silence(client, pytest.fail).look()


@pytest.fixture
def run(broker: str, queue: str) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a command of the worker's."""
    variables = {"POSE_BROKER_URL": broker, "POSE_QUEUE": queue}

    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "worker", *words]
        environment = {**clean_environ(), **variables}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)

    return run


def test_the_command_shows_where_a_job_is(
    client: PoseClient, worker: Worker, run: Callable[..., subprocess.CompletedProcess]
) -> None:
    job = client.submit("/a.jpg")
    done = run("job", job.id)
    assert (done.returncode, "waits on queue" in done.stdout) == (0, True)
    assert "No worker takes jobs" in done.stderr
    worker.begin(job.id)
    worker.end(job.id, ImageNotFound("It is not there."))
    assert json.loads(run("job", job.id, "--json").stdout)["why"] == "ImageNotFound: It is not there."
    assert "waits on queue" in run("job", job.id, "--retry").stdout
    assert run("job", job.id, "--retry").returncode == 2


def test_status_without_a_worker_fails_and_says_how_to_start_one(
    run: Callable[..., subprocess.CompletedProcess], queue: str
) -> None:
    done = run("status")
    assert done.returncode == 1
    assert f"No worker takes jobs from queue {queue!r}" in done.stderr


def test_submit_without_a_worker_says_so_long_before_its_time_is_over(
    run: Callable[..., subprocess.CompletedProcess], tmp_path: Any
) -> None:
    done = run("submit", "--timeout", "7", "--out", str(tmp_path), "/a.jpg")
    assert done.returncode == 1
    assert done.stderr.count("No worker takes jobs") == 1


def test_the_documented_commands_say_where_a_job_is(broker: str, worker: Worker, redis_client: redis.Redis) -> None:
    with PoseClient(broker) as client:
        client.submit("/b.jpg", job_id=f"first-{uuid.uuid4()}")
        job = client.submit("/a.jpg", job_id="order-4711")
        answers: List[Any] = []
        block = example("docs/clients.md", "sh", "HGET pose:job:order-4711 state")
        for line in block.replace("\\\n", " ").splitlines():
            program, option, url, *words = shlex.split(line, comments=True)
            assert (program, option, url) == ("redis-cli", "-u", "$POSE_BROKER_URL")
            sent = redis_client.hget("pose:job:order-4711", "sent").decode()
            words = [re.sub(r"\(\d+\.\d+", f"({sent}", word) for word in words]
            answers.append(redis_client.execute_command(*words))
        state, _, before, due, result = answers
        assert (state, before, due, result) == (b"waiting", 1, None, None)
        assert Ledger(redis_client, "pose").finish(job.id, "done", worker.stored(job.id))
