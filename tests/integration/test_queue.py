"""An image path on a real queue becomes keypoints and a picture; a bad input hurts only itself."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple

import cv2
import numpy as np
import pytest
import redis

from worker import errors
from worker.children import stop_child
from worker.client import PoseClient
from worker.contract import TASK

pytestmark = pytest.mark.queue

#: Seconds for one job, far beyond what any takes.
PATIENCE = 60


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """The one folder whose images the worker may read."""
    folder = tmp_path_factory.mktemp("allowed")
    for name in ("bus.jpg", "astronaut.png"):
        (folder / name).write_bytes((samples / name).read_bytes())
    return folder


@pytest.fixture(scope="module", params=["net process", "inline"])
def client(
    request: pytest.FixtureRequest, broker: str, desk: Path, start_worker: Callable[..., subprocess.Popen]
) -> Iterator[PoseClient]:
    """A client of a worker that may read `desk` and at most 10 megapixels."""
    inline = request.param == "inline"
    worker = start_worker(
        "cpu0", POSE_BROKER_URL=broker, POSE_IMAGE_ROOTS=desk, POSE_MAX_PIXELS=10_000_000, POSE_INLINE=int(inline)
    )
    with PoseClient(broker) as client:
        yield client
    assert stop_child(worker, grace_s=20) == 0


def test_the_people_in_the_bus_photograph(client: PoseClient, desk: Path) -> None:
    job = client.submit(desk / "bus.jpg")
    result = job.result(PATIENCE)
    assert job.state == "SUCCESS"
    assert (result.image.width, result.image.height, result.image.format) == (810, 1080, "JPEG")
    # Three people stand free in front of the bus; a fourth is cut by the left edge.
    necks = sorted(person.keypoints[1][0] for person in result.people if person.keypoints[1])
    for expected in (123, 284, 800):
        assert any(abs(neck - expected) < 60 for neck in necks), necks
    assert 3 <= len(result.people) <= 5
    assert result.job_id == job.id
    assert result.worker.startswith("cpu0@")
    assert result.device == "cpu"
    assert result.attempt == 1
    assert list(result.timings_ms) == ["decode", "preprocess", "net", "associate", "overlay", "store", "total"]


def test_the_overlay_is_whole_and_expires_with_the_result(
    client: PoseClient, desk: Path, redis_client: redis.Redis
) -> None:
    before = set(redis_client.scan_iter())
    job = client.submit(desk / "bus.jpg")
    overlay = job.result(PATIENCE).overlay
    picture = job.overlay()
    assert overlay is not None
    assert picture is not None
    assert (overlay.bytes, overlay.sha256) == (len(picture), hashlib.sha256(picture).hexdigest())
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (1080, 810, 3)
    left = set(redis_client.scan_iter()) - before
    assert f"celery-task-meta-{job.id}".encode() in left
    # What Celery keeps of a queue and of messages in work stays as long as they do.
    kept = [key for key in left if redis_client.ttl(key) == -1]
    assert [key for key in kept if not key.startswith(b"_kombu") and b"unacked" not in key] == []


def test_options_reach_the_estimator(client: PoseClient, desk: Path) -> None:
    result = client.submit(desk / "bus.jpg", max_people=1, scales=(1.0, 0.5), overlay=False).result(PATIENCE)
    assert len(result.people) == 1
    assert result.overlay is None


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_camera_that_hangs_otherwise(client: PoseClient, desk: Path, degrees: int) -> None:
    """Turned back, the image has the people of the upright one, where they are there; its picture is upright, too."""
    upright, path = cv2.imread(str(desk / "bus.jpg")), desk / f"turned{degrees}.png"
    cv2.imwrite(str(path), np.rot90(upright, degrees // 90))
    cv2.imwrite(str(desk / "upright.png"), upright)
    expected = client.submit(desk / "upright.png", overlay=False).result(PATIENCE)
    job = client.submit(path, rotate=degrees)
    result = job.result(PATIENCE)
    assert (result.image.width, result.image.height) == (810, 1080)
    one, other = expected.to_arrays()[0], result.to_arrays()[0]
    assert len(one) == len(other) > 0
    assert other.keypoints == pytest.approx(one.keypoints, abs=0.5, nan_ok=True)
    drawn = cv2.imdecode(np.frombuffer(job.overlay() or b"", np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == upright.shape
    assert np.abs(drawn.astype(int) - upright).mean() < 20


def test_a_jpeg_that_is_decoded_at_half_its_size_and_rotated(client: PoseClient, desk: Path) -> None:
    """Positions and size are those of the whole image, turned."""
    upright = cv2.resize(cv2.imread(str(desk / "bus.jpg")), (1620, 2160))
    cv2.imwrite(str(desk / "lying.jpg"), np.rot90(upright, 1))
    result = client.submit(desk / "lying.jpg", rotate=90, overlay=False, target_height=200).result(PATIENCE)
    assert (result.image.width, result.image.height) == (1620, 2160)
    assert len(result.people) >= 1
    for person in result.people:
        necks = [keypoint for keypoint in person.keypoints[1:2] if keypoint]
        assert all(700 < y < 1400 for _, y, _ in necks)
    assert any(person.keypoints[1] for person in result.people)


def test_people_who_are_far_away_are_looked_at_again(client: PoseClient, desk: Path) -> None:
    """They are small in a large JPEG; without a second look at all of its pixels, fewer or none are found."""
    street = cv2.resize(cv2.imread(str(desk / "bus.jpg")), (450, 600), interpolation=cv2.INTER_AREA)
    large = cv2.copyMakeBorder(street, 900, 500, 1500, 1000, cv2.BORDER_REFLECT)
    large[:900] = large[1500:] = 90
    cv2.imwrite(str(desk / "far.jpg"), large)
    once = client.submit(desk / "far.jpg", overlay=False).result(PATIENCE)
    result = client.submit(desk / "far.jpg", overlay=False, refine="twice").result(PATIENCE)
    scores = [[person.score for person in each.people] for each in (once, result)]
    assert len(scores[1]) >= len(scores[0]) > 0
    assert scores[1][0] > scores[0][0]


def _file(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(desk: Path) -> Path:
        path = desk / name
        path.write_bytes(data)
        return path

    return make


def _truncated(desk: Path) -> Path:
    return _file("truncated.jpg", (desk / "bus.jpg").read_bytes()[:20_000])(desk)


def _too_large(desk: Path) -> Path:
    path = desk / "large.png"
    cv2.imwrite(str(path), np.zeros((4000, 4000), np.uint8))
    return path


def _outside(desk: Path) -> Path:
    path = desk.parent / "outside.jpg"
    path.write_bytes((desk / "bus.jpg").read_bytes())
    return path


def _link_out(desk: Path) -> Path:
    link = desk / "link.jpg"
    link.unlink(missing_ok=True)
    link.symlink_to(_outside(desk))
    return link


def _fifo(desk: Path) -> Path:
    path = desk / "fifo.jpg"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


BAD_INPUTS: Dict[str, Tuple[Callable[[Path], Path], type]] = {
    "missing": (lambda desk: desk / "nowhere.jpg", errors.ImageNotFound),
    "directory": (lambda desk: desk, errors.ImageNotAllowed),
    "text called .jpg": (
        _file("text.jpg", b"not an image, however long this text may be\n" * 9),
        errors.ImageUndecodable,
    ),
    "truncated": (_truncated, errors.ImageUndecodable),
    "zero bytes": (_file("empty.jpg", b""), errors.ImageUndecodable),
    "too many pixels": (_too_large, errors.ImageTooLarge),
    "outside the roots": (_outside, errors.ImageNotAllowed),
    "link to the outside": (_link_out, errors.ImageNotAllowed),
    "fifo": (_fifo, errors.ImageNotAllowed),
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_a_bad_image_fails_alone_typed_and_in_one_sentence(client: PoseClient, desk: Path, kind: str) -> None:
    make, expected = BAD_INPUTS[kind]
    path = make(desk)
    job = client.submit(path)
    with pytest.raises(expected) as caught:
        job.result(PATIENCE)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert client.app.AsyncResult(job.id).traceback is None
    assert client.submit(desk / "astronaut.png", overlay=False).result(PATIENCE).people


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"options": {"sclaes": [1]}}, "sclaes is not an option"),
        ({"options": {"target_height": "368"}}, "options.target_height"),
        ({"options": "fast"}, "options"),
        ({"image": 7}, "image: must be a string"),
        ({"pixels": []}, "pixels is not an argument"),
        ({"options": {"model": "another"}}, "asks for the net 'another'"),
    ],
)
def test_a_foreign_message_is_checked_at_the_worker(
    client: PoseClient, desk: Path, kwargs: Dict[str, Any], told: str
) -> None:
    message = {"image": str(desk / "bus.jpg"), **kwargs}
    job = client.app.send_task(TASK, kwargs=message, queue="pose")
    with pytest.raises(errors.InvalidRequest, match=told):
        job.get(PATIENCE)


def test_wrong_options_are_refused_before_anything_is_sent(client: PoseClient, redis_client: redis.Redis) -> None:
    before = redis_client.llen("pose")
    with pytest.raises(errors.InvalidRequest, match="sclaes"):
        client.submit("a.jpg", sclaes=(1,))
    assert redis_client.llen("pose") == before


def test_a_broker_that_is_away_is_told_in_one_sentence() -> None:
    with PoseClient("redis://:s3cret@127.0.0.1:1/0") as client, pytest.raises(errors.BrokerUnavailable) as caught:
        client.submit("a.jpg")
    assert "redis://:***@127.0.0.1:1/0 does not answer" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_no_answer_is_a_timeout_and_not_the_end_of_the_job(broker: str) -> None:
    with PoseClient(broker, queue="nobody-listens") as client:
        job = client.submit("a.jpg")
        with pytest.raises(TimeoutError, match="No worker takes jobs from queue 'nobody-listens'"):
            job.result(0.2)
        assert job.state == "PENDING"
