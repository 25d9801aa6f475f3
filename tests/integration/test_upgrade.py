"""What the version before has left in Redis is read and gone on with: its results, messages and records of jobs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, List

import pytest
import redis

from tests.support import ROOT, clean_environ, wait_until
from tests.support.objects import environment, use
from tests.support.recorded import BUCKET, FOLDER, IMAGE, restore
from worker.children import stop_child
from worker.cli.local import embedded_redis
from worker.client import PoseClient
from worker.errors import DeadLetter, ImageUndecodable, JobCancelled
from worker.storage import s3

pytestmark = [
    pytest.mark.queue,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),  # botocore's own
]

#: Seconds for one job, far beyond what any takes.
PATIENCE = 60


@pytest.fixture
def untouched() -> Iterator[str]:
    """A Redis that no worker looks at."""
    with embedded_redis() as url:
        yield url


@pytest.fixture
def reader(untouched: str) -> Iterator[PoseClient]:
    with PoseClient(untouched) as client:
        yield client


@pytest.fixture
def kept(untouched: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(untouched) as client:
        yield client


def test_a_result_and_its_picture_are_read(reader: PoseClient, kept: redis.Redis) -> None:
    job = reader.job(restore(kept, "done"))
    result = job.result(PATIENCE)
    assert job.state == "SUCCESS"
    assert (result.schema_version, result.image.path, result.image.width, result.attempt) == (1, IMAGE, 256, 1)
    assert len(result.people) == 2
    assert result.overlay is not None
    assert len(job.overlay() or b"") == result.overlay.bytes


def test_who_submits_it_again_gets_it_and_sends_nothing(reader: PoseClient, kept: redis.Redis) -> None:
    job_id = restore(kept, "done")
    assert len(reader.submit(IMAGE, job_id=job_id, target_height=184).result(PATIENCE).people) == 2
    assert kept.llen("pose") == 0


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("failed", ImageUndecodable, "broken.jpg"),
        ("dead", DeadLetter, "recorded-dead was tried once in vain, last: JobTimedOut"),
        ("revoked", JobCancelled, "recorded-revoked"),
    ],
)
def test_other_outcomes_are_read(reader: PoseClient, kept: redis.Redis, state: str, error: type, words: str) -> None:
    job = reader.job(restore(kept, state))
    with pytest.raises(error, match=words):
        job.result(PATIENCE)
    assert job.state == ("REVOKED" if state == "revoked" else "FAILURE")
    [(same, outcome)] = reader.as_completed([job], timeout=PATIENCE)
    assert same.id == job.id
    assert isinstance(outcome, error)


@pytest.mark.parametrize(("state", "shown"), [("waiting", "PENDING"), ("running", "STARTED"), ("retried", "RETRY")])
def test_what_has_not_ended_is_shown_as_it_is_and_can_be_cancelled(
    reader: PoseClient, kept: redis.Redis, state: str, shown: str
) -> None:
    job = reader.job(restore(kept, state))
    assert job.state == shown
    assert job.cancel()
    with pytest.raises(JobCancelled):
        job.result(PATIENCE)


@pytest.fixture(scope="module")
def deployment(
    broker: str, object_store: str, start_worker: Callable[..., subprocess.Popen]
) -> Iterator[Dict[str, Any]]:
    """The variables of a worker of today, which is ready; the recorded jobs' image lies where it lay."""
    variables = {
        **environment(object_store),
        "POSE_BROKER_URL": broker,
        "POSE_IMAGE_ROOTS": f"s3://{BUCKET}",
        "POSE_ENGINE": "null",
    }
    patch = pytest.MonkeyPatch()
    use(object_store, patch)
    try:
        files = s3.filesystem()
        files.mkdir(BUCKET)
        files.pipe_file(f"{BUCKET}/image.jpg", (FOLDER / "image.jpg").read_bytes())
        worker = start_worker("cpu0", **variables)
        with PoseClient(broker) as client:
            client.submit(IMAGE, overlay=False).result(90)
        yield variables
        assert stop_child(worker, grace_s=20) == 0
    finally:
        patch.undo()
        s3.forget()


@pytest.fixture
def client(broker: str, deployment: Dict[str, Any]) -> Iterator[PoseClient]:
    with PoseClient(broker) as client:
        yield client


@pytest.mark.parametrize(
    ("state", "attempt"),
    [
        ("waiting", 1),  # its message lies on the queue
        ("running", 2),  # its worker was killed; its message is among those in work
        ("retried", 2),  # its pause is over
    ],
)
def test_a_job_goes_on(client: PoseClient, redis_client: redis.Redis, state: str, attempt: int) -> None:
    job_id = restore(redis_client, state)
    result = client.job(job_id).result(PATIENCE)
    assert (result.image.path, result.attempt) == (IMAGE, attempt)
    record: List[bytes] = redis_client.hmget(f"pose:job:{job_id}", "state", "attempts")
    assert record == [b"done", str(attempt).encode()]


def test_a_job_whose_message_is_lost_is_sent_again(client: PoseClient, redis_client: redis.Redis) -> None:
    job_id = restore(redis_client, "lost")
    assert client.job(job_id).result(PATIENCE).attempt == 1
    assert redis_client.hget(f"pose:job:{job_id}", "resent") == b"1"


def test_a_job_that_was_cancelled_is_not_done(client: PoseClient, redis_client: redis.Redis) -> None:
    job_id = restore(redis_client, "revoked")
    wait_until(lambda: not redis_client.exists("pose", "unacked"))
    with pytest.raises(JobCancelled):
        client.job(job_id).result(PATIENCE)
    assert redis_client.hget(f"pose:job:{job_id}", "attempts") == b"0"


def test_a_dead_letter_is_shown_and_put_back(
    client: PoseClient, redis_client: redis.Redis, deployment: Dict[str, Any]
) -> None:
    job_id = restore(redis_client, "dead")

    def dead(*words: str) -> str:
        command = [sys.executable, "-m", "worker", "dead", *words]
        variables = {**clean_environ(), **deployment}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "JobTimedOut" in dead("show", job_id)
    dead("requeue", job_id)
    assert client.job(job_id).result(PATIENCE).attempt == 1
