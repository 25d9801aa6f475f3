"""A film on a real queue becomes keypoints with ids and a drawn film, by segments that any slot works on."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import av
import numpy as np
import pytest
import redis
from PIL import Image

from tests.support import films, wait_until
from worker import errors
from worker.client import PoseClient
from worker.jobs.ledger import Ledger

pytestmark = pytest.mark.queue

#: Seconds for one film, far beyond what any takes.
PATIENCE = 120
FRAMES = 40


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """The one folder whose films the worker may read, with a photograph over which a camera moves."""
    folder = tmp_path_factory.mktemp("allowed")
    picture = np.asarray(Image.open(samples / "bus.jpg").convert("RGB").resize((405, 540)))[:, :, ::-1]
    views = (picture[180:480, number : number + 300] for number in range(FRAMES))
    films.make_film(folder / "pan.mp4", views, fps=10)
    return folder


@pytest.fixture(scope="module")
def client(broker: str, desk: Path, start_worker: Callable[..., subprocess.Popen]) -> Iterator[PoseClient]:
    """A client of a worker that cuts films into segments of 15 frames."""
    start_worker(
        *("cpu0",),
        POSE_BROKER_URL=broker,
        POSE_IMAGE_ROOTS=desk,
        POSE_SEGMENT_FRAMES=15,
        POSE_MAX_VIDEO_S=60,
        POSE_MAX_PIXELS=10_000_000,
        POSE_SOFT_TIME_LIMIT_S=10,
        POSE_MAX_ATTEMPTS=2,
        POSE_RETRY_BASE_S=0.1,
    )
    with PoseClient(broker) as client:
        yield client


@pytest.fixture(scope="module")
def panned(client: PoseClient, desk: Path) -> Any:
    """The job of the film of the photograph, drawn."""
    job = client.submit_video(desk / "pan.mp4", target_height=184)
    job.result(PATIENCE)
    return job


def _lines(data: bytes) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(data).splitlines()]


def test_people_keep_their_ids_while_the_camera_moves(panned: Any) -> None:
    result = panned.result(PATIENCE)
    assert (result.frames, result.missing, result.segments) == (FRAMES, 0, 3)
    assert (result.video.width, result.video.height, result.video.frames) == (300, 300, FRAMES)
    assert result.video.duration_s == pytest.approx(FRAMES / 10)
    assert result.with_people == FRAMES
    lasting = [track for track in result.tracks if track.frames >= 0.9 * FRAMES]
    assert lasting
    assert lasting[0].spans_s[0][0] <= 0.3
    lines = _lines(panned.keypoints())
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["time_s"] for line in lines] == pytest.approx([number / 10 for number in range(FRAMES)])
    first, last = (next(one for one in line["people"] if one["id"] == lasting[0].id) for line in (lines[5], lines[-5]))
    necks = [one["keypoints"][1][0] for one in (first, last)]
    assert necks[0] - necks[1] == pytest.approx(FRAMES - 10, abs=8)  # as far as the camera has gone


def test_the_drawn_film_has_each_frame_at_its_time(panned: Any, desk: Path) -> None:
    with av.open(io.BytesIO(panned.overlay())) as drawn, av.open(str(desk / "pan.mp4")) as source:
        assert drawn.streams.video[0].codec_context.name == "h264"
        pairs = list(zip(drawn.decode(video=0), source.decode(video=0)))
    assert len(pairs) == FRAMES
    assert [float(one.time) for one, _ in pairs] == pytest.approx([number / 10 for number in range(FRAMES)], abs=1e-3)
    apart = [
        np.abs(one.to_ndarray(format="bgr24").astype(int) - other.to_ndarray(format="bgr24")).mean()
        for one, other in pairs
    ]
    assert all(1 < mean < 20 for mean in apart)  # the same pictures, with people drawn on them


def test_the_same_film_in_one_piece_has_the_same_people(client: PoseClient, panned: Any, desk: Path) -> None:
    parts = [{"end_s": 2.0}, {"start_s": 2.0}]
    cut = [
        _lines(
            client.submit_video(desk / "pan.mp4", target_height=184, track=False, overlay=False, **part).keypoints(
                PATIENCE
            )
        )
        for part in parts
    ]
    whole = [
        {**line, "people": [{name: value for name, value in one.items() if name != "id"} for one in line["people"]]}
        for line in _lines(panned.keypoints())
    ]
    assert [*cut[0], *cut[1]] == whole


def test_what_is_left_for_later_steps_is_removed(panned: Any, broker: str) -> None:
    with redis.Redis.from_url(broker) as server:
        assert not list(server.scan_iter(f"*{panned.id}~*"))
        assert list(server.scan_iter(f"*overlay*{panned.id}*"))  # which is where they would be


def test_progress_names_the_phase(client: PoseClient, desk: Path) -> None:
    job = client.submit_video(desk / "pan.mp4", target_height=368)
    seen: List[Any] = []
    wait_until(lambda: seen.append(job.progress()) or seen[-1].phase == "ended", PATIENCE)
    phases = [one.phase for one in seen]
    assert "look" in phases
    looked = [one for one in seen if one.phase == "look"]
    assert {one.segments for one in looked} == {3}
    assert {one.frames for one in looked} == {FRAMES}
    assert [one.done for one in looked] == sorted(one.done for one in looked)
    assert any(one.frames_per_s and one.eta_s is not None for one in seen)


def test_cancelling_a_film_ends_all_of_it(client: PoseClient, desk: Path, broker: str) -> None:
    job = client.submit_video(desk / "pan.mp4", target_height=656, every=1)
    wait_until(lambda: job.progress().phase == "look")
    assert job.cancel()
    with pytest.raises(errors.JobCancelled):
        job.result(PATIENCE)
    with redis.Redis.from_url(broker) as server:
        wait_until(lambda: not server.exists("pose", "unacked", "pose:running", "pose:parts"), PATIENCE)
        assert not list(server.scan_iter("pose:waiting:*"))


def _audio_only(path: Path) -> None:
    films.make_sound(path)


def _truncated(path: Path) -> None:
    whole = path.with_name("whole.mp4")
    films.make_film(whole, films.frames(100), fps=25)
    path.write_bytes(whole.read_bytes()[:3000])


def _long(path: Path) -> None:
    films.make_film(path, films.frames(3), times_s=[0, 40, 80])


@pytest.mark.parametrize(
    ("make", "options", "error", "says"),
    [
        pytest.param(_audio_only, {}, errors.VideoUndecodable, "no video", id="audio only"),
        pytest.param(_truncated, {}, errors.VideoUndecodable, "corrupt|truncated|cannot", id="truncated"),
        pytest.param(lambda path: path.write_bytes(b""), {}, errors.VideoUndecodable, "empty", id="empty"),
        pytest.param(
            lambda path: path.write_text("#EXTM3U\n/etc/passwd\n"), {}, errors.VideoUndecodable, "playlist", id="list"
        ),
        pytest.param(_long, {}, errors.VideoTooLarge, "120 s, of which 60", id="too long"),
        pytest.param(
            lambda path: films.make_film(path, films.frames(5)),
            {"start_s": 9.0},
            errors.InvalidRequest,
            "5 frames",
            id="nothing there",
        ),
        pytest.param(lambda path: None, {}, errors.ImageNotFound, "does not exist", id="nothing"),
    ],
)
def test_bad_input_ends_typed(
    client: PoseClient, desk: Path, make: Callable[[Path], Any], options: Dict[str, Any], error: Any, says: str
) -> None:
    path = desk / "bad.mp4"
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(error, match=says):
        client.submit_video(path, target_height=64, **options).result(PATIENCE)


def test_a_folder_that_is_not_allowed_is_not_read(client: PoseClient, tmp_path: Path) -> None:
    films.make_film(tmp_path / "secret.mp4", films.frames(3))
    with pytest.raises(errors.ImageNotAllowed):
        client.submit_video(tmp_path / "secret.mp4").result(PATIENCE)


def test_a_broken_end_loses_its_frames_only(client: PoseClient, desk: Path) -> None:
    films.make_film(desk / "whole.mkv", films.frames(100), fps=25)
    data = (desk / "whole.mkv").read_bytes()
    (desk / "end.mkv").write_bytes(data[: int(len(data) * 0.8)])
    result = client.submit_video(desk / "end.mkv", target_height=64).result(PATIENCE)
    assert 40 < result.frames < 100


def test_a_film_that_vanishes_ends_as_failed_and_keeps_what_was_found(
    client: PoseClient, desk: Path, broker: str
) -> None:
    path = films.make_film(desk / "goes.mp4", films.frames(60, 640, 480), fps=Fraction(10))
    job = client.submit_video(path, target_height=368)
    wait_until(lambda: job.progress().done)
    path.unlink()
    with pytest.raises(errors.VideoFailed, match="ImageNotFound"):
        job.result(PATIENCE)
    record = Ledger(client.app.backend.client, "pose").show(job.id)
    assert record["state"] == "failed"
    films.make_film(path, films.frames(60, 640, 480), fps=Fraction(10))
    done = int(record["parts:ended"]) - int(record["parts:failed"])
    job.retry()
    assert job.result(PATIENCE).frames == 60
    assert int(Ledger(client.app.backend.client, "pose").show(job.id)["tries"]) >= 4
    assert done >= 1


def test_every_beyond_the_length_gives_one_frame(client: PoseClient, desk: Path) -> None:
    result = client.submit_video(desk / "pan.mp4", target_height=64, every=1000, overlay=False).result(PATIENCE)
    assert (result.frames, result.segments) == (1, 1)


def test_a_film_is_sent_with_its_job(client: PoseClient, tmp_path: Path) -> None:
    path = films.make_film(tmp_path / "sent.mp4", films.frames(30))
    result = client.submit_video(path, upload=True, target_height=64).result(PATIENCE)
    assert (result.frames, result.segments) == (30, 2)
