"""What a client refuses, sends, cancels and gives back; the worker is played by the test."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import redis

from worker.client import PoseClient
from worker.client.job import new_job
from worker.contract import Image, Model, Result
from worker.errors import BrokerUnavailable, ImageNotFound, InvalidRequest, JobCancelled, JobConflict, JobFailed
from worker.jobs.ledger import Ledger, ResultKey

pytestmark = pytest.mark.queue


@pytest.fixture
def queue() -> str:
    """A queue that no other test sends to."""
    return f"client-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client(broker: str, queue: str) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=queue) as client:
        yield client


def _messages(redis_client: redis.Redis, queue: str) -> List[Dict[str, Any]]:
    return [json.loads(text) for text in redis_client.lrange(queue, 0, -1)]


def _answer(client: PoseClient, job_id: str, people: int = 0) -> None:
    """End a job as a worker would."""
    result = Result(
        job_id=job_id,
        image=Image(path="a.jpg", width=9, height=9, format="JPEG"),
        model=Model(name="net", sha256="0"),
        people=[{"score": 1.0, "keypoints": [(1.0, 2.0, 0.5)] * 18}] * people,
        timings_ms={},
        worker="cpu0@here",
        device="cpu",
        attempt=1,
    )
    _end(client, job_id, "SUCCESS", result.to_message())


def _end(client: PoseClient, job_id: str, state: str, result: Any) -> None:
    backend = client.app.backend
    stored = backend.prepare_exception(result) if isinstance(result, Exception) else result
    meta = {**backend._get_result_meta(stored, state, None, None), "task_id": job_id}
    key = ResultKey(backend.get_key_for_task(job_id).decode(), backend.encode(meta), 60)
    assert Ledger(backend.client, "pose").finish(job_id, "done" if state == "SUCCESS" else "failed", key)


def test_a_job_of_ones_own_id_is_sent_once(client: PoseClient, redis_client: redis.Redis, queue: str) -> None:
    job_id = f"order:4711.{uuid.uuid4()}"
    first = client.submit("a.jpg", job_id=job_id, target_height=240)
    again = client.submit("a.jpg", job_id=job_id, target_height=240)
    assert first.id == again.id == job_id
    assert [message["headers"]["id"] for message in _messages(redis_client, queue)] == [job_id]
    with pytest.raises(JobConflict, match="choose a new id"):
        client.submit("b.jpg", job_id=job_id, target_height=240)


def test_a_job_is_found_again_by_its_id(client: PoseClient, broker: str) -> None:
    submitted = client.submit("a.jpg")
    with PoseClient(broker) as elsewhere:
        found = elsewhere.job(submitted.id)
        with pytest.raises(TimeoutError, match=f"^Job {submitted.id} has not ended"):
            found.result(0.05)
        _answer(client, submitted.id, people=2)
        assert len(found.result(5).people) == 2
        assert found.state == "SUCCESS"


def test_a_job_that_could_not_be_sent_may_be_another_under_the_same_id(broker: str, redis_client: redis.Redis) -> None:
    job_id = uuid.uuid4().hex
    with PoseClient("redis://127.0.0.1:1/0", result_backend=broker) as client, pytest.raises(BrokerUnavailable):
        client.submit("a.jpg", job_id=job_id)
    assert Ledger(redis_client, "pose").state(job_id) is None


def test_what_is_sent(client: PoseClient, redis_client: redis.Redis, queue: str) -> None:
    client.submit("/a.jpg", priority=3, expires=60, webhook="https://example.org/done", max_people=2)
    (message,) = _messages(redis_client, f"{queue}\x06\x163")
    assert message["properties"]["priority"] == 3
    expires = datetime.fromisoformat(message["headers"]["expires"])
    assert timedelta(seconds=50) < expires - datetime.now(timezone.utc) < timedelta(seconds=70)
    assert message["headers"]["task"] == "pose.estimate"
    assert message["headers"]["argsrepr"] == "()"


def test_another_queue_and_a_callback_by_name(client: PoseClient, redis_client: redis.Redis, queue: str) -> None:
    job = client.submit("/a.jpg", queue=f"{queue}-2", callback="shop.posed")
    (message,) = _messages(redis_client, f"{queue}-2")
    assert message["headers"]["id"] == job.id
    new = new_job("/a.jpg", {}, queue="q", callback="shop.posed")
    assert new.message.kwargs == {"image": "/a.jpg", "options": {}, "callback": {"task": "shop.posed"}}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"job_id": ""}, "job_id: must be"),
        ({"job_id": "../up"}, "job_id: must be"),
        ({"job_id": 7}, "job_id: must be"),
        ({"priority": 10}, "priority: must be a whole number from 0 to 9"),
        ({"priority": True}, "priority: must be"),
        ({"expires": "tomorrow"}, "expires: must be seconds"),
        ({"expires": -1}, "expires: must be in the future"),
        ({"expires": datetime(2020, 1, 1)}, "expires: must be in the future"),
        ({"webhook": "example.org"}, "webhook: string should match"),
        ({"callback": {"queue": "shop"}}, "callback.task: field required"),
        ({"sclaes": [1]}, "options.sclaes is not an option"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_sent(
    client: PoseClient, redis_client: redis.Redis, queue: str, arguments: Dict[str, Any], fault: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.submit("a.jpg", **arguments)
    assert fault in str(caught.value)
    assert _messages(redis_client, queue) == []


def test_outcomes_are_given_as_they_come(client: PoseClient) -> None:
    jobs = client.submit_many(["a.jpg", "b.jpg", "c.jpg"], overlay=False)
    ending = client.as_completed(jobs, timeout=20)
    _answer(client, jobs[2].id, people=2)
    job, outcome = next(ending)
    assert job is jobs[2]
    assert isinstance(outcome, Result)
    assert len(outcome.people) == 2
    _end(client, jobs[0].id, "FAILURE", ImageNotFound("a.jpg is not there"))
    job, outcome = next(ending)
    assert job is jobs[0]
    assert isinstance(outcome, ImageNotFound)
    _answer(client, jobs[1].id)
    assert [job for job, _ in ending] == [jobs[1]]


def test_not_more_than_so_many_are_open_at_a_time(client: PoseClient, redis_client: redis.Redis, queue: str) -> None:
    outcomes = client.map((f"{n}.jpg" for n in range(7)), in_flight=3, timeout=20)
    done, most = [], 0
    original = client.ended

    def ended(ids: Any) -> Any:
        nonlocal most
        most = max(most, len(ids))
        _answer(client, ids[0])
        return original(ids)

    client.ended = ended  # type: ignore[method-assign]
    done = [Path(job.image).name for job, _ in outcomes]
    assert sorted(done) == [f"{n}.jpg" for n in range(7)]
    assert most == 3


def test_silence_is_a_timeout(client: PoseClient) -> None:
    with pytest.raises(TimeoutError, match="is a worker running"):
        list(client.map(["a.jpg"], timeout=0.1))


def test_many_jobs_cannot_have_one_id(client: PoseClient) -> None:
    with pytest.raises(InvalidRequest, match="job_id"):
        client.submit_many(["a.jpg"], job_id="one")


def test_a_directory(client: PoseClient, tmp_path: Path) -> None:
    for name in ("a.jpg", "deep/b.PNG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [job.image for job in client.submit_directory(tmp_path)] == [
        str(tmp_path / "a.jpg"),
        str(tmp_path / "deep" / "b.PNG"),
    ]
    with pytest.raises(InvalidRequest, match="is not a folder"):
        client.submit_directory(tmp_path / "nowhere")


def test_a_cancelled_job_has_ended_for_everybody(client: PoseClient, broker: str) -> None:
    job = client.submit("a.jpg")
    assert job.cancel()
    assert job.state == "REVOKED"
    with pytest.raises(JobCancelled, match="was cancelled"):
        job.result(5)
    with PoseClient(broker) as other:
        ((_, outcome),) = other.ended([job.id])
        assert isinstance(outcome, JobCancelled)
    assert not job.cancel()


def test_a_job_that_has_ended_is_not_cancelled(client: PoseClient) -> None:
    job = client.submit("a.jpg")
    _end(client, job.id, "FAILURE", ImageNotFound("a.jpg is not there"))
    assert not job.cancel()
    with pytest.raises(ImageNotFound):
        job.result(5)


@pytest.mark.parametrize("stored", [b"%", b"7", b'{"status": "SUCCESS", "result": {}}', b"copied"])
def test_what_is_no_result_of_the_job_is_not_taken_for_one(
    client: PoseClient, redis_client: redis.Redis, stored: bytes
) -> None:
    real, other = f"real-{uuid.uuid4().hex}", f"other-{uuid.uuid4().hex}"
    _answer(client, client.submit("a.jpg", job_id=real).id)
    if stored == b"copied":
        stored = redis_client.get(f"celery-task-meta-{real}")
    redis_client.set(f"celery-task-meta-{other}", stored, ex=60)
    with pytest.raises(JobFailed, match="not from a worker"):
        client.job(other).result(10)
    [(_, outcome)] = client.ended([other])
    assert isinstance(outcome, JobFailed)
