"""Signed messages on a real queue: who has no key is refused; what a stranger writes to Redis is not believed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import redis

from tests.support import ROOT, clean_environ, wait_until
from tests.support.hostile_messages import message
from worker.children import stop_child
from worker.cli.keygen import make_keys
from worker.client import PoseClient
from worker.client.job import new_job
from worker.contract import TASK
from worker.errors import InvalidRequest, JobCancelled, JobFailed
from worker.jobs.ledger import Message
from worker.signing import Signer

pytestmark = [pytest.mark.queue, pytest.mark.long]

#: The queue, and the key prefix.
NAME = "signed"
PATIENCE = 90


@pytest.fixture(scope="module")
def image(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "bus.jpg"
    path.write_bytes((samples / "bus.jpg").read_bytes())
    return path


@pytest.fixture(scope="module")
def worker(broker: str, image: Path, signing: Path, start_worker: Callable) -> Iterator[subprocess.Popen]:
    variables = {"POSE_QUEUE": NAME, "POSE_KEY_PREFIX": NAME, "POSE_IMAGE_ROOTS": image.parent, "POSE_ENGINE": "null"}
    waits = {"POSE_FILE_GRACE_S": 20, "POSE_RETRY_BASE_S": 0.3, "POSE_RETRY_MAX_S": 0.5}
    child = start_worker("cpu0", POSE_BROKER_URL=broker, POSE_SIGNING=signing / "worker", **variables, **waits)
    yield child
    assert stop_child(child, grace_s=20) == 0


@pytest.fixture(scope="module")
def client(worker: subprocess.Popen, broker: str, signing: Path) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=NAME, key_prefix=NAME, signing=str(signing / "client")) as client:
        yield client


def _result_key(job_id: str) -> str:
    return f"{NAME}:celery-task-meta-{job_id}"


def _refused(redis_client: redis.Redis, job_id: str) -> List[str]:
    entries = map(json.loads, redis_client.lrange(f"{NAME}:refused", 0, -1))
    return [entry["why"] for entry in entries if entry["job_id"] == job_id]


def _arguments(image: Path) -> List[Any]:
    return [[], {"image": str(image), "options": {"overlay": False}}, {}]


def _signed(job_id: str, body: str) -> bytes:
    """A message whose body is signed already."""
    fields = message(job_id, body, **{"content-type": "application/data"})
    return json.dumps(fields).encode()


def test_jobs_are_done_and_everything_of_them_is_signed(
    client: PoseClient, redis_client: redis.Redis, image: Path, signing: Path
) -> None:
    job = client.submit(image, job_id="whole")
    assert job.result(PATIENCE).image.width == 810
    assert (job.overlay() or b"").startswith(b"\xff\xd8")
    assert next(iter(client.ended([job.id])))[1].job_id == "whole"
    stored = Signer(str(signing / "client")).unseal(redis_client.get(_result_key("whole")))
    assert stored["result"]["job_id"] == "whole"
    with pytest.raises(InvalidRequest):
        client.submit(image, model="another").result(PATIENCE)


def test_what_may_pass_is_sent_again_signed(client: PoseClient, image: Path) -> None:
    late = image.parent / "late.jpg"
    job = client.submit(late, overlay=False)
    wait_until(lambda: job.state == "RETRY")
    late.write_bytes(image.read_bytes())
    assert job.result(PATIENCE).people == []


def test_a_lost_message_is_sent_again_signed(client: PoseClient, image: Path) -> None:
    new = new_job(image, {"overlay": False}, queue=NAME, job_id="lost")
    client._ledger.record(new.id, new.message)
    assert client.job("lost").result(PATIENCE).people == []


def test_a_job_is_cancelled_by_its_client(client: PoseClient, image: Path) -> None:
    job = client.submit(image.parent / "never.jpg")
    wait_until(lambda: job.state == "RETRY")
    assert job.cancel()
    with pytest.raises(JobCancelled):
        job.result(PATIENCE)
    assert client.app.control.ping(timeout=5, limit=1)


def test_a_client_without_a_key_is_refused(
    broker: str, client: PoseClient, redis_client: redis.Redis, image: Path
) -> None:
    with PoseClient(broker, queue=NAME, key_prefix=NAME) as stranger:
        job = stranger.submit(image, overlay=False)
        with pytest.raises(JobFailed, match="not from a worker"):
            job.result(PATIENCE)
    assert "signed messages" in _refused(redis_client, job.id)[0]
    with pytest.raises(InvalidRequest, match="not signed by anybody who is trusted"):
        client.job(job.id).result(PATIENCE)


def test_a_foreign_client_without_a_key_is_refused(client: PoseClient, redis_client: redis.Redis, image: Path) -> None:
    redis_client.lpush(NAME, json.dumps(message("foreign", _arguments(image))))
    with pytest.raises(InvalidRequest, match="this worker takes signed messages"):
        client.job("foreign").result(PATIENCE)
    assert client.submit(image, overlay=False).result(PATIENCE).attempt == 1


def test_another_key_or_a_changed_body_is_refused(
    client: PoseClient, redis_client: redis.Redis, image: Path, signing: Path, tmp_path: Path
) -> None:
    make_keys(tmp_path, ("thief",))
    body, own = _arguments(image), Signer(str(signing / "client"))
    whole = base64.b64decode(own.seal(body))
    wrong = {
        "stolen": Signer(str(tmp_path / "thief")).seal(body),
        "changed": base64.b64encode(whole.replace(b"bus.jpg", b"any.jpg")).decode(),
        "retyped": base64.b64encode(whole.replace(b"application/json", b"application/x-python-serialize")).decode(),
        "recoded": base64.b64encode(whole.replace(b"utf-8", b"bz2")).decode(),
        "cut": own.seal(body)[:-40],
        "empty": "",
        "plain": json.dumps(body),
    }
    for job_id, sealed in wrong.items():
        redis_client.lpush(NAME, _signed(job_id, sealed))
    for job_id in wrong:
        with pytest.raises(InvalidRequest):
            client.job(job_id).result(PATIENCE)
    redis_client.lpush(NAME, _signed("right", own.seal(body)))
    assert client.job("right").result(PATIENCE).people == []


def test_a_record_that_a_stranger_has_written_is_not_sent(
    client: PoseClient, redis_client: redis.Redis, image: Path
) -> None:
    evil = Message(NAME, kwargs={"image": str(image), "options": {"overlay": False}})
    fields = {"digest": evil.digest, "message": evil.dumps(), "list": NAME, "tries": 0, "attempts": 0}
    for state in ("waiting", "later"):
        known: Dict[Any, Any] = {**fields, "state": state, "submitted": time.time(), "sent": time.time()}
        redis_client.hset(f"{NAME}:job:{state}", mapping=known)
        redis_client.expire(f"{NAME}:job:{state}", 600)
    redis_client.zadd(f"{NAME}:waiting:{NAME}", {"waiting": 1})
    redis_client.zadd(f"{NAME}:later", {"later": 1})
    for state in ("waiting", "later"):
        with pytest.raises(InvalidRequest, match="not signed"):
            client.job(state).result(PATIENCE)
    assert client.submit(image, overlay=False).result(PATIENCE).attempt == 1


def test_a_result_that_a_stranger_has_written_is_not_believed(
    client: PoseClient, redis_client: redis.Redis, image: Path
) -> None:
    job = client.submit(image, overlay=False)
    job.result(PATIENCE)
    sealed = redis_client.get(_result_key(job.id))
    made_up = json.dumps({"status": "SUCCESS", "result": {}, "task_id": "made-up", "traceback": None, "children": []})
    for job_id, stored in (("made-up", made_up), ("copied", sealed), ("nonsense", b"%")):
        redis_client.set(_result_key(job_id), stored, ex=600)
        with pytest.raises(JobFailed, match="not from a worker"):
            client.job(job_id).result(PATIENCE)
        [(_, outcome)] = client.ended([job_id])
        assert isinstance(outcome, JobFailed)


def test_any_celery_client_with_a_key_is_served(worker: Any, broker: str, image: Path, signing: Path) -> None:
    """With Celery's own means alone, in a process of its own."""
    script = f"""
import celery
app = celery.Celery(broker={broker!r}, backend={broker!r})
app.conf.update(task_serializer="auth", result_serializer="auth", accept_content=["auth"],
    security_key={str(signing / "client/key.pem")!r}, security_certificate={str(signing / "client/certificate.pem")!r},
    security_cert_store={str(signing / "client/trusted/*.pem")!r},
    result_backend_transport_options={{"global_keyprefix": "{NAME}:"}})
app.setup_security()
sent = app.send_task({TASK!r}, kwargs={{"image": {str(image)!r}}}, queue={NAME!r})
print(sent.get(timeout=30)["image"]["width"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=clean_environ(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "810\n", done.stderr
