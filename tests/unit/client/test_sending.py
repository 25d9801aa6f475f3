"""Images that are sent with their jobs: what comes out of a client's hands, and what it refuses to send."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator

import numpy as np
import pytest
import redis
from PIL import Image

from worker.client import PoseClient
from worker.client.aio import AsyncPoseClient
from worker.errors import ImageNotFound, ImageTooLarge, InvalidRequest, JobConflict

pytestmark = pytest.mark.queue

LARGE = bytes(range(256)) * 1000


@pytest.fixture
def client(broker: str) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=f"sending-{uuid.uuid4().hex[:8]}", max_bytes=300_000) as client:
        yield client


@pytest.fixture
def redis_client(broker: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker) as client:
        yield client


def _arguments(redis_client: redis.Redis, client: PoseClient) -> Dict[str, Any]:
    """Of the message that was sent last."""
    envelope = json.loads(redis_client.lindex(client._queue.name, 0))
    arguments: Dict[str, Any] = json.loads(base64.b64decode(envelope["body"]))[1]
    return arguments


def _picture(arguments: Dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(arguments["image"].partition(",")[2])))


def test_a_large_one_lies_beside_the_job(client: PoseClient, redis_client: redis.Redis) -> None:
    job = client.submit(data=LARGE, max_people=3)
    digest = hashlib.sha256(LARGE).hexdigest()
    assert _arguments(redis_client, client) == {"image": f"upload:{digest}", "options": {"max_people": 3}}
    assert redis_client.get(f"pose:upload:{job.id}") == LARGE
    assert job.image == f"upload:{digest}"
    assert job.cancel()
    assert not redis_client.exists(f"pose:upload:{job.id}")


def test_a_small_one_is_in_the_message(client: PoseClient, redis_client: redis.Redis) -> None:
    job = client.submit(data=b"small")
    assert _arguments(redis_client, client)["image"] == "data:;base64,c21hbGw="
    assert (job.image, redis_client.exists(f"pose:upload:{job.id}")) == ("data:;base64,…", 0)


def test_a_path_is_read_here(client: PoseClient, redis_client: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(LARGE)
    (tmp_path / "b.jpg").write_bytes(b"small")
    jobs = client.submit_directory(tmp_path, upload=True)
    assert [job.image for job in jobs] == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    assert redis_client.get(f"pose:upload:{jobs[0].id}") == LARGE
    assert _arguments(redis_client, client)["image"] == "data:;base64,c21hbGw="


def test_arrays_and_pictures_lose_nothing(client: PoseClient, redis_client: redis.Redis) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    client.submit(data=pixels)
    assert (np.asarray(_picture(_arguments(redis_client, client))) == pixels[:, :, ::-1]).all()
    client.submit(data=pixels[:, :, 0])
    assert (np.asarray(_picture(_arguments(redis_client, client))) == pixels[:, :, 0]).all()
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6
    client.submit(data=turned)
    found = _picture(_arguments(redis_client, client))
    assert (np.asarray(found) == pixels).all()
    assert found.getexif()[0x0112] == 6


def test_the_same_job_is_sent_once_and_another_is_not_taken(client: PoseClient, redis_client: redis.Redis) -> None:
    job_id = f"own-{uuid.uuid4().hex}"
    client.submit(data=LARGE, job_id=job_id)
    client.submit(data=LARGE, job_id=job_id)
    assert redis_client.llen(client._queue.name) == 1
    with pytest.raises(JobConflict):
        client.submit(data=LARGE[::-1], job_id=job_id)
    assert redis_client.get(f"pose:upload:{job_id}") == LARGE


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ({}, InvalidRequest, "either a path or data"),
        ({"path": "a.jpg", "data": b"x"}, InvalidRequest, "either a path or data"),
        ({"data": b""}, InvalidRequest, "is empty"),
        ({"data": "text"}, InvalidRequest, r"\(got str\)"),
        ({"data": np.zeros((9, 9, 3))}, InvalidRequest, r"an array of float64 \(9, 9, 3\)"),
        ({"data": np.zeros((9, 9, 7), np.uint8)}, InvalidRequest, r"an array of uint8 \(9, 9, 7\)"),
        ({"data": np.zeros((0, 9), np.uint8)}, InvalidRequest, "an array of"),
        ({"data": bytes(300_001)}, ImageTooLarge, "more than 300000 bytes"),
        ({"path": "/no/such.jpg", "upload": True}, ImageNotFound, "/no/such.jpg cannot be read here"),
        ({"path": "/", "upload": True}, ImageNotFound, "cannot be read here"),
        ({"path": "https://host/a.jpg", "upload": True}, ImageNotFound, "cannot be read here"),
    ],
)
def test_what_is_no_image_is_not_sent(
    client: PoseClient, redis_client: redis.Redis, arguments: Dict[str, Any], kind: type, sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        client.submit(**arguments)
    assert redis_client.llen(client._queue.name) == 0


def test_too_many_are_not_sent(broker: str, redis_client: redis.Redis) -> None:
    queue, prefix = f"sending-{uuid.uuid4().hex[:8]}", f"full-{uuid.uuid4().hex[:8]}"
    with PoseClient(broker, queue=queue, key_prefix=prefix, max_uploads_bytes=300_000) as client:
        client.submit(data=LARGE)
        with pytest.raises(ImageTooLarge, match=r"more than 300000 bytes together; .* POSE_MAX_UPLOADS_BYTES"):
            client.submit(data=LARGE)
    assert redis_client.llen(queue) == 1


def test_with_asyncio(client: PoseClient, broker: str, redis_client: redis.Redis) -> None:
    async def send() -> str:
        async with AsyncPoseClient(broker, queue=client._queue.name) as alike:
            return (await alike.submit(data=LARGE)).id

    assert redis_client.get(f"pose:upload:{asyncio.run(send())}") == LARGE
