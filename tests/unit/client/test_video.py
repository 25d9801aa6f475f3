"""A film's job: what is sent and refused, how far it is, what comes back and what goes. The worker is the test's."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import redis

from tests.support.documents import example
from tests.support.film_results import described, kept, lines, stored, video_result
from tests.support.film_workers import FILM, Workers
from worker.client import PoseClient, VideoResult
from worker.client.aio import AsyncPoseClient
from worker.client.film import frames_of, progress_of
from worker.contract import Image, Model, Result
from worker.errors import (
    ImageNotFound,
    ImageTooLarge,
    InvalidRequest,
    JobCancelled,
    JobConflict,
    JobFailed,
    StorageUnavailable,
)
from worker.jobs.ledger import Message, ResultKey
from worker.jobs.where import Where
from worker.servers import Keys
from worker.storage.urls import open_store
from worker.video_contract import PART_TASK, VIDEO_TASK

pytestmark = pytest.mark.queue

WHERE = {"worker": "gpu3@host", "device": "cuda:0", "pid": 7}


@pytest.fixture
def queue() -> str:
    """A queue that no other test sends to."""
    return f"video-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client(broker: str, queue: str) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=queue) as client:
        yield client


def _messages(redis_client: redis.Redis, queue: str) -> List[Dict[str, Any]]:
    return [json.loads(text) for text in redis_client.lrange(queue, 0, -1)]


def _end(client: PoseClient, job_id: str, result: Any, state: str = "done") -> None:
    backend = client.app.backend
    success = "FAILURE" if isinstance(result, Exception) else "SUCCESS"
    assert client._ledger.finish(job_id, state, backend.encoded(job_id, result, success, ttl_s=60))


def _finish(client: PoseClient, broker: str, job_id: str, *, drawn: bool = True, count: int = 30) -> bytes:
    """End a film as a worker would; returns its keypoints as they are kept."""
    data, film = kept(lines(count)), b"a film" * 9
    keypoints = stored(broker, job_id, data, "application/gzip")
    overlay = stored(broker, job_id, film, "video/mp4") if drawn else None
    _end(client, job_id, video_result(job_id, keypoints, lines(count), overlay).to_message())
    return data


def _image_result(job_id: str) -> Result:
    return Result(
        job_id=job_id,
        image=Image(path="a.jpg", width=9, height=9, format="JPEG"),
        model=Model(name="net", sha256="0"),
        people=[],
        timings_ms={},
        worker="cpu0@here",
        device="cpu",
        attempt=1,
    )


class Worker:
    """Does to a film what workers do."""

    def __init__(self, client: PoseClient, queue: str, job_id: str) -> None:
        self.ledger, self.queue, self.id = client._ledger, queue, job_id
        self._backend = client.app.backend

    def begin(self, job_id: str = "") -> None:
        message = Message(self.queue, kwargs=json.loads(self.ledger.show(job_id or self.id)["message"])["kwargs"])
        begun = self.ledger.begin(job_id or self.id, "holder", message, WHERE, 3, self._started(job_id or self.id))
        assert begun.verdict == "begun"

    def await_parts(self, step: str, count: int, frames: int) -> None:
        parts = [Message(self.queue, kwargs={"segment": number}, task=PART_TASK) for number in range(count)]
        own = Message(self.queue, kwargs=json.loads(self.ledger.show(self.id)["message"])["kwargs"], task=VIDEO_TASK)
        assert self.ledger.await_parts(self.id, "holder", own, step, frames, parts)

    def end_part(self, step: str, number: int) -> None:
        part = f"{self.id}/{step}/{number}"
        self.begin(part)
        assert self.ledger.finish(part, "done", self._started(part))

    def _started(self, job_id: str) -> ResultKey:
        return self._backend.encoded(job_id, None, "STARTED", ttl_s=60)


def test_what_is_sent(client: PoseClient, redis_client: redis.Redis, queue: str) -> None:
    film = client.submit_video("street.mp4", priority=3, expires=60, every=2, start_s=1.5, overlay=False)
    (message,) = _messages(redis_client, f"{queue}\x06\x163")
    assert message["headers"]["task"] == "pose.video"
    assert message["headers"]["id"] == film.id
    record = json.loads(client._ledger.show(film.id)["message"])
    assert record["kwargs"] == {
        "video": str(Path("street.mp4").absolute()),
        "options": {"every": 2, "start_s": 1.5, "overlay": False},
    }
    assert film.video == str(Path("street.mp4").absolute())
    assert repr(film) == f"VideoHandle({film.id!r}, {film.video!r})"


def test_a_film_of_ones_own_id_is_sent_once(client: PoseClient, redis_client: redis.Redis, queue: str) -> None:
    job_id = f"film-{uuid.uuid4()}"
    for _ in range(2):
        assert client.submit_video("/a.mp4", job_id=job_id, every=2).id == job_id
    assert len(_messages(redis_client, queue)) == 1
    for other in ({"every": 3}, {}):
        with pytest.raises(JobConflict, match="choose a new id"):
            client.submit_video("/a.mp4", job_id=job_id, **other)
    with pytest.raises(JobConflict):
        client.submit("/a.mp4", job_id=job_id)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"every": 0}, r"options\.every: "),
        ({"evry": 2}, r"options\.evry is not an option"),
        ({"start_s": 3, "end_s": 2}, "start_s: must be before end_s"),
        ({"maps": True}, "maps: are kept of images"),
        ({"smooth": 1.0, "track": False}, "smooth: needs track"),
        ({"overlay": {"background": "transparent"}}, "overlay: a film cannot be transparent"),
        ({"job_id": "a/look/3"}, "job_id: must be"),
        ({"priority": 10}, "priority: must be"),
        ({"webhook": "example.org"}, "webhook: string should match"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_sent(
    client: PoseClient, redis_client: redis.Redis, queue: str, arguments: Dict[str, Any], fault: str
) -> None:
    with pytest.raises(InvalidRequest, match=fault):
        client.submit_video("/a.mp4", **arguments)
    assert _messages(redis_client, queue) == []


def test_a_film_is_no_data_url(client: PoseClient, redis_client: redis.Redis, queue: str) -> None:
    with pytest.raises(InvalidRequest, match="a film is not sent in the message"):
        client.submit_video("data:video/mp4;base64,AAAA")
    assert _messages(redis_client, queue) == []


def test_a_film_is_sent_beside_its_job_however_small_it_is(
    broker: str, client: PoseClient, redis_client: redis.Redis, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"film")
    film = client.submit_video(path, upload=True)
    assert json.loads(client._ledger.show(film.id)["message"])["kwargs"]["video"].startswith("upload:")
    assert redis_client.get(Keys().upload(film.id)) == b"film"
    assert film.video == str(path)
    with PoseClient(broker, max_bytes=3) as small, pytest.raises(ImageTooLarge, match="more than 3 bytes; send a sm"):
        small.submit_video(path, upload=True)
    with pytest.raises(ImageNotFound):
        client.submit_video(tmp_path / "none.mp4", upload=True)
    path.write_bytes(b"")
    with pytest.raises(InvalidRequest, match=r"The film .* is empty"):
        client.submit_video(path, upload=True)


def test_the_result_and_what_is_kept(client: PoseClient, broker: str) -> None:
    film = client.submit_video("/a.mp4")
    with pytest.raises(TimeoutError, match=f"Job {film.id} for '/a.mp4' has not ended"):
        film.result(0.05)
    data = _finish(client, broker, film.id)
    result = film.result(5)
    assert isinstance(result, VideoResult)
    assert [(track.id, len(track.spans_s)) for track in result.tracks] == [(3, 1), (7, 2)]
    assert film.keypoints(5) == data
    assert film.overlay(5) == b"a film" * 9
    frames = list(film.frames(5))
    assert [(frame.number, frame.time_s) for frame in frames[:2]] == [(0, 0.0), (1, 0.04)]
    assert [person["id"] for person in frames[0].people] == [3, 7]
    assert frames[15].people[0]["keypoints"][4] is None
    with PoseClient(broker) as elsewhere:  # which knows only the id
        assert elsewhere.video(film.id).result(5) == result


def test_a_film_that_nobody_wanted_drawn_has_no_overlay(client: PoseClient, broker: str) -> None:
    film = client.submit_video("/a.mp4", overlay=False)
    _finish(client, broker, film.id, drawn=False)
    assert film.overlay(5) is None


def test_all_that_a_film_has_left_is_discarded(client: PoseClient, broker: str) -> None:
    film = client.submit_video("/a.mp4")
    _finish(client, broker, film.id)
    result = film.result(5)
    client.discard(film.id, result)
    store = open_store(broker, "pose")
    for key in (f"keypoints/{film.id}.jsonl.gz", f"overlay/{film.id}.mp4"):
        with pytest.raises(StorageUnavailable):
            store.get(key, 1 << 20)
    assert film.state == "PENDING"


def test_a_film_fails_typed_and_can_be_cancelled(client: PoseClient) -> None:
    failed, cancelled = client.submit_video("/a.mp4"), client.submit_video("/b.mp4")
    _end(client, failed.id, ImageNotFound("It is not there."), "failed")
    with pytest.raises(ImageNotFound):
        failed.result(5)
    assert cancelled.cancel()
    with pytest.raises(JobCancelled):
        cancelled.result(5)
    assert cancelled.progress().phase == "ended"
    cancelled.retry()
    assert cancelled.progress().phase == "waiting"


def test_a_handle_of_the_other_kind_says_so(client: PoseClient, broker: str) -> None:
    film, image = client.submit_video("/a.mp4"), client.submit("/a.jpg")
    _finish(client, broker, film.id)
    _end(client, image.id, _image_result(image.id).to_message())
    for wrong, right in ((client.job(film.id), "client.video"), (client.video(image.id), "client.job")):
        with pytest.raises(JobFailed, match=right):
            wrong.result(5)
        ((_, outcome),) = client.as_completed([wrong], timeout=5)
        assert isinstance(outcome, JobFailed)


def test_images_and_films_are_awaited_together(client: PoseClient, broker: str) -> None:
    film, image = client.submit_video("/a.mp4"), client.submit("/a.jpg")
    _finish(client, broker, film.id)
    _end(client, image.id, _image_result(image.id).to_message())
    outcomes = {job.id: type(outcome).__name__ for job, outcome in client.as_completed([film, image], timeout=5)}
    assert outcomes == {film.id: "VideoResult", image.id: "Result"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"video": 7},
        {"tracks": [{"id": 1}]},
        {"keypoints": None},
        {"job_id": "another"},
        {"limbs": [[0, 99]]},
        {"keypoint_names": ["nose"] * 18},
    ],
)
def test_what_is_no_result_of_a_film_is_none(client: PoseClient, wrong: Dict[str, Any]) -> None:
    film = client.submit_video("/a.mp4")
    data = kept(lines(3))
    _end(
        client, film.id, {**video_result(film.id, described(data, "application/gzip"), lines(3)).to_message(), **wrong}
    )
    with pytest.raises(JobFailed, match="not from a worker"):
        film.result(5)


def test_keypoints_that_were_changed_are_not_given_out(client: PoseClient, broker: str) -> None:
    film = client.submit_video("/a.mp4")
    _finish(client, broker, film.id)
    store = open_store(broker, "pose")
    size = film.result(5).keypoints.bytes
    store.put(f"keypoints/{film.id}.jsonl.gz", bytes(size), media_type="application/gzip", ttl_s=60)
    with pytest.raises(JobFailed, match="by size or SHA-256"):
        film.keypoints(5)


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"no JSON\n"), gzip.compress(b"[1]\n"), kept([{}])])
def test_frames_that_cannot_be_read_are_a_failure(data: bytes) -> None:
    with pytest.raises(JobFailed, match="cannot be read"):
        list(frames_of("j", data))


def test_a_film_says_how_far_it_is(client: PoseClient, queue: str) -> None:
    film = client.submit_video("/a.mp4")
    worker = Worker(client, queue, film.id)
    assert film.progress().phase == "waiting"
    worker.begin()
    assert film.progress().phase == "plan"
    worker.await_parts("look", 4, 400)
    found = film.progress()
    assert (found.phase, found.done, found.segments, found.frames) == ("look", 0, 4, 400)
    assert (found.frames_per_s, found.eta_s) == (None, None)
    for number in range(3):
        worker.end_part("look", number)
    found, status = film.progress(), film.status()
    assert (found.done, found.segments) == (3, 4)
    assert found.frames_per_s is not None
    assert found.eta_s is not None
    assert found.eta_s * found.frames_per_s == pytest.approx(100)
    assert (status.state, status.phase, status.done, status.segments) == ("running", "look", 3, 4)
    assert str(status) == f"Job {film.id} is in parts: 3 of 4 segments looked at."
    with pytest.raises(TimeoutError, match="3 of 4 segments"):
        film.result(0.05)
    worker.end_part("look", 3)
    assert film.progress().phase == "join"
    assert client._ledger.resume(film.id)
    worker.begin()
    assert film.progress().phase == "join"
    worker.await_parts("draw", 2, 400)
    worker.end_part("draw", 0)
    assert (film.progress().phase, film.progress().done) == ("draw", 1)
    assert "1 of 2 segments drawn" in str(film.status())


@pytest.mark.parametrize(
    ("state", "step", "phase"),
    [
        ("", "", "waiting"),
        ("waiting", "", "waiting"),
        ("running", "", "plan"),
        ("later", "", "plan"),
        ("waiting", "look", "join"),
        ("later", "look", "join"),
        ("running", "draw", "put together"),
        ("done", "draw", "ended"),
        ("dead", "look", "ended"),
    ],
)
def test_the_phases(state: str, step: str, phase: str) -> None:
    where = Where.of([state, *[""] * 9, step, *[""] * 7])
    assert progress_of(where).phase == phase


def test_how_fast_it_is_counts_from_this_round() -> None:
    """Of 10 segments of 100 frames, 4 were done before; 3 more took 6 s."""
    where = Where.of(["parts", *[""] * 9, "look", "10", "7", "4", "0", "100", "1000", "106"])
    found = progress_of(where)
    assert found.frames_per_s == pytest.approx(50)
    assert found.eta_s == pytest.approx(6)


def test_the_same_with_asyncio(broker: str, queue: str) -> None:
    async def run() -> None:
        async with AsyncPoseClient(broker, queue=queue) as client:
            film = await client.submit_video("/a.mp4", every=2)
            assert (await film.progress()).phase == "waiting"
            assert film.video == "/a.mp4"
            data = _finish(client.sync, broker, film.id)
            ((_, outcome),) = [pair async for pair in client.as_completed([client.video(film.id)], timeout=5)]
            assert isinstance(outcome, VideoResult)
            assert await film.keypoints(5) == data
            assert await film.overlay(5) == b"a film" * 9
            assert len(list(await film.frames(5))) == 30
            with pytest.raises(JobFailed, match=r"client\.video"):
                await client.job(film.id).result(5)
            await client.discard(film.id, outcome)
            assert await film.state() == "PENDING"

    asyncio.run(run())


def test_the_documented_example_runs(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    block = example("docs/clients.md", "python", "submit_video").replace("redis://127.0.0.1:6379/0", broker)
    assert broker in block
    with Workers(broker) as workers:
        exec(compile(block, "clients.md", "exec"), {})
    assert [task for task, _ in workers.asked] == ["pose.video"]
    said = capsys.readouterr().out
    assert "30 [(3, [(0.0, 1.16)]), (7, [" in said
    assert "1.16 [(3, [69.0, 60.0, 0.9])" in said
    assert (tmp_path / "street_rendered.mp4").read_bytes() == FILM
