"""Results that no worker wrote: whoever can write to Redis must not reach the files of those who read from it."""

from __future__ import annotations

import asyncio
import json
import uuid
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import pytest
import redis

from tests.support.overlays import SECRET, described
from worker.cli.batch import Batch
from worker.cli.report import Report
from worker.cli.writers import OpenPoseFiles
from worker.client import PoseClient
from worker.client.aio import AsyncPoseClient
from worker.client.find import Found
from worker.contract import Image, Model, Overlay, Result
from worker.errors import ImageNotFound, JobCancelled, JobFailed, PoseError, SettingsError, StorageUnavailable
from worker.storage.urls import open_store

pytestmark = pytest.mark.queue


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the client's user, which nobody else may read."""
    path = tmp_path / "private" / "id_rsa"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def client(broker: str) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=f"forged-{uuid.uuid4().hex[:8]}") as client:
        yield client


def _result(job_id: str, overlay: Optional[Overlay] = None, maps: Optional[Overlay] = None) -> Dict[str, Any]:
    return Result(
        job_id=job_id,
        image=Image(path="../../a.jpg", width=9, height=9, format="JPEG"),
        model=Model(name="net", sha256="0"),
        people=[],
        overlay=overlay,
        maps=maps,
        timings_ms={},
        worker="cpu0@here",
        device="cpu",
        attempt=1,
    ).to_message()


def _forge(server: redis.Redis, job_id: str, result: Any, status: str = "SUCCESS", **more: Any) -> None:
    """Write as the result of a job what no worker has."""
    meta = {"status": status, "result": result, "task_id": job_id, "traceback": None, "children": [], **more}
    server.set(f"celery-task-meta-{job_id}", json.dumps(meta), ex=60)


#: URLs of the secret, of a folder that holds it, and of others' things; {secret} is its path.
URLS = [
    "file://{secret}",
    "file:///{secret}",
    "FILE://{secret}",
    "file://localhost{secret}",
    "file:{secret}",
    "file://{folder}/../private/id_rsa",
    "file://{folder}/%2e%2e/private/id_rsa",
    "file://{folder}/overlay/..%2f..%2fprivate%2fid_rsa",
    "file://{folder}/overlay/{job}.jpg%00",
    "file://{folder}/overlay/\uff0e\uff0e/private/id_rsa",
    "{secret}",
    "/{secret}",
    "../private/id_rsa",
    "s3://another-bucket/overlay/{job}.jpg",
    "s3://another-bucket",
    "redis:///pose%3Aoverlay/another.jpg",
    "redis:///pose:overlay/{job}.jpg",  # not written as a store writes it
    "redis:///pose%3Aoverlay/{job}%2ejpg",
    "redis:///pose%3Aoverlay/../pose%3Ajob%3Aanother",
    "redis:///pose%3Ajob%3Aanother",
    "redis:///pose",
    "redis:///",
    "redis://192.0.2.1:6379/pose%3Aoverlay/{job}.jpg",
    "https://192.0.2.1/{job}.jpg",
    "\nfile://{secret}",
    "",
]


@pytest.mark.parametrize("kind", ["redis", "file"])
@pytest.mark.parametrize("url", URLS)
def test_nothing_is_fetched_or_deleted_but_the_jobs_own(
    broker: str, redis_client: redis.Redis, secret: Path, tmp_path: Path, kind: str, url: str
) -> None:
    folder, job_id = tmp_path / "store", f"j-{uuid.uuid4().hex}"
    (folder / "pose" / "overlay").mkdir(parents=True)
    keys = ("pose", "pose:overlay/another.jpg", "pose:job:another")
    redis_client.mset(dict.fromkeys(keys, SECRET))
    forged = described(url.format(secret=secret, folder=folder, job=job_id))
    _forge(redis_client, job_id, _result(job_id, forged, described(forged.url, media_type="application/zip")))
    with PoseClient(broker, overlay_store=folder.as_uri() if kind == "file" else None) as client:
        job = client.job(job_id)
        for get in (job.overlay, job.maps):
            with pytest.raises(SettingsError, match="takes only") as caught:
                get(5)
            assert "POSE_OVERLAY_STORE" in str(caught.value)
        client.discard(job_id, job.result(5))
    assert secret.read_bytes() == SECRET
    assert redis_client.mget(keys) == [SECRET] * 3
    redis_client.delete(*keys)


def test_the_error_names_both_stores(client: PoseClient, redis_client: redis.Redis) -> None:
    _forge(redis_client, "both", _result("both", described("s3://elsewhere/overlay/both.jpg")))
    with pytest.raises(
        SettingsError, match=r"names s3://elsewhere/overlay/both\.jpg, but .* only redis:///pose%3Aoverlay/both\.jpg;"
    ):
        client.job("both").overlay(5)


def test_a_batch_copies_and_deletes_no_private_file(
    client: PoseClient, redis_client: redis.Redis, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack as it was made: the file was in ``out/`` afterwards, and gone from where it had been."""
    original = client.submit

    def submit(path: Any, **arguments: Any) -> Any:
        job = original(path, **arguments)
        _forge(redis_client, job.id, _result(job.id, described(secret.as_uri())))
        return job

    monkeypatch.setattr(client, "submit", submit)
    writers = [OpenPoseFiles(tmp_path / "out"), Report(tmp_path / "report.html")]
    batch = Batch(client, writers, {}, idle_timeout_s=5)
    summary = batch.run(iter([Found("a.jpg", "a"), Found("b.jpg", "b")]), lambda _: None)
    assert (summary.done, [kind for _, kind, _ in summary.failures]) == (0, ["SettingsError"] * 2)
    assert secret.read_bytes() == SECRET
    assert not (tmp_path / "out").exists()


def test_the_client_for_asyncio_fetches_and_deletes_nothing_else_either(
    broker: str, redis_client: redis.Redis, secret: Path
) -> None:
    overlay = described(secret.as_uri())
    _forge(redis_client, "aio", _result("aio", overlay))

    async def run() -> None:
        async with AsyncPoseClient(broker, overlay_store=secret.parent.as_uri()) as client:
            with pytest.raises(SettingsError, match="takes only"):
                await client.job("aio").overlay(5)
            with pytest.raises(SettingsError, match="takes only"):
                await client.fetch(overlay, "aio")
            await client.discard("aio", await client.job("aio").result(5))

    asyncio.run(run())
    assert secret.read_bytes() == SECRET


def test_a_client_deletes_its_overlay_from_redis_and_no_file(broker: str, tmp_path: Path) -> None:
    for url, left in ((broker, False), (tmp_path.as_uri(), True)):
        with PoseClient(broker, overlay_store=url) as client:
            store = open_store(url, "pose")
            own = store.put("overlay/d.jpg", SECRET, media_type="image/jpeg", ttl_s=60)
            client.discard("d", Result.model_validate(_result("d", described(own.url))))
            if left:
                assert store.get("overlay/d.jpg", 100) == SECRET
            else:
                with pytest.raises(StorageUnavailable):
                    store.get("overlay/d.jpg", 100)


#: Results that are none; ``{job}`` is replaced by the id. All but the last two are JSON.
NO_RESULTS: Dict[str, Dict[str, Any]] = {
    "of another job": {"result": _result("another")},
    "no result": {"result": None},
    "a list": {"result": [1]},
    "no dimensions": {"result": {**_result("{job}"), "image": {**_result("x")["image"], "width": 0}}},
    "huge number": {"result": {**_result("{job}"), "image": {**_result("x")["image"], "width": 10**400}}},
    "negative size": {
        "result": {**_result("{job}"), "overlay": {**described("redis:///x").model_dump(), "bytes": -1}},
    },
    "no state": {"status": "ENDED"},
    "state of another type": {"status": ["SUCCESS"]},
    "id of another type": {"task_id": {"a": 1}},
    "children": {"result": 1, "children": [[[1, 2, 3], 4], "x"]},
    "no exception": {"status": "FAILURE", "result": 7},
    "a function": {"status": "FAILURE", "result": {"exc_module": "os", "exc_type": "system", "exc_message": ["id"]}},
    "an exit": {"status": "FAILURE", "result": {"exc_module": "builtins", "exc_type": "SystemExit", "exc_message": []}},
    "a module": {"status": "FAILURE", "result": {"exc_module": "worker.errors", "exc_type": "Mapping.x"}},
    "no type": {"status": "FAILURE", "result": {"exc_message": "x"}},
}


def _forge_none(server: redis.Redis, job_id: str, meta: Dict[str, Any]) -> None:
    forged = {"status": "SUCCESS", "result": _result(job_id), "task_id": job_id, **meta}
    text = json.dumps(forged).replace("{job}", job_id)
    server.set(f"celery-task-meta-{job_id}", text, ex=60)


@pytest.mark.parametrize("kind", NO_RESULTS)
def test_what_is_no_result_is_that_jobs_failure_alone(client: PoseClient, redis_client: redis.Redis, kind: str) -> None:
    _forge_none(redis_client, "forged", NO_RESULTS[kind])
    _forge(redis_client, "honest", _result("honest"))
    outcomes = dict(client.ended(["forged", "honest"]))
    assert isinstance(outcomes["forged"], JobFailed)
    assert isinstance(outcomes["honest"], Result)
    with pytest.raises(JobFailed):
        client.job("forged").result(5)

    async def wait() -> None:
        async with AsyncPoseClient(client.app.conf.broker_url) as other:
            with pytest.raises(JobFailed):
                await other.job("forged").result(5)

    asyncio.run(wait())


@pytest.mark.parametrize(
    "stored", [b"[" * 100_000, b"\xff", b"null", b"{}", b"9" * 5000, zlib.compress(b"{}"), b'{"status": NaN}']
)
def test_what_is_no_json_is_that_jobs_failure_alone(
    client: PoseClient, redis_client: redis.Redis, stored: bytes
) -> None:
    redis_client.set("celery-task-meta-garbage", stored, ex=60)
    ((_, outcome),) = client.ended(["garbage"])
    assert isinstance(outcome, JobFailed)
    with pytest.raises(JobFailed):
        client.job("garbage").result(5)
    with pytest.raises(JobFailed):
        client.state("garbage")


def test_a_batch_goes_on_after_a_surprise(client: PoseClient, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Celery's SecurityError ended the whole of it."""
    jobs = [client.job(f"batch-{number}") for number in range(3)]
    _forge_none(redis_client, jobs[0].id, NO_RESULTS["a function"])
    _forge(redis_client, jobs[1].id, _result(jobs[1].id))
    _forge_none(redis_client, jobs[2].id, NO_RESULTS["an exit"])
    outcomes = {job.id: outcome for job, outcome in client.as_completed(jobs, timeout=5)}
    assert all(isinstance(outcomes[job.id], (Result, PoseError)) for job in jobs)


def test_errors_of_ours_keep_their_type_and_others_are_named(client: PoseClient, redis_client: redis.Redis) -> None:
    stored = {"exc_module": "worker.errors", "exc_type": "ImageNotFound", "exc_message": ["a.jpg is not there."]}
    _forge(redis_client, "ours", stored, "FAILURE")
    _forge(redis_client, "other", {"exc_module": "x", "exc_type": "KeyError", "exc_message": "'a'"}, "FAILURE")
    _forge(redis_client, "revoked", stored, "REVOKED")
    outcomes = dict(client.ended(["ours", "other", "revoked"]))
    assert {name: type(outcome) for name, outcome in outcomes.items()} == {
        "ours": ImageNotFound,
        "other": JobFailed,
        "revoked": JobCancelled,
    }
    assert str(outcomes["ours"]) == "a.jpg is not there."
    assert str(outcomes["other"]) == "Job other ended as FAILURE: KeyError: 'a'."


@pytest.mark.parametrize(
    "data", [SECRET, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff" + bytes(99)], ids=["text", "png", "jpg"]
)
def test_a_picture_that_is_none_is_one_images_failure(
    client: PoseClient,
    broker: str,
    redis_client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
) -> None:
    original = client.submit

    def submit(path: Any, **arguments: Any) -> Any:
        job = original(path, **arguments)
        own = open_store(broker, "pose").put(f"overlay/{job.id}.jpg", data, media_type="image/jpeg", ttl_s=60)
        _forge(redis_client, job.id, _result(job.id, described(own.url, data)))
        return job

    monkeypatch.setattr(client, "submit", submit)
    batch = Batch(client, [Report(tmp_path / "report.html")], {}, idle_timeout_s=5)
    summary = batch.run(iter([Found("a.jpg", "a"), Found("b.jpg", "b")]), lambda _: None)
    assert [kind for _, kind, _ in summary.failures] == ["ImageUndecodable"] * 2
    assert (tmp_path / "report.html").read_text().count('class="failed"') == 2
