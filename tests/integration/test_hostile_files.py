"""Hostile files and jobs through a real queue: each ends, typed, at its first attempt; the worker goes on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, Type

import psutil
import pytest
import redis
from PIL import Image

from tests.support.hostile_files import write_files
from worker.children import stop_child
from worker.client import PoseClient
from worker.contract import Result
from worker.errors import ImageError, ImageTooLarge, ImageUndecodable, InvalidRequest, JobTooLarge, PermanentError
from worker.jobs.ledger import Ledger
from worker.observe.heartbeat import read_heartbeats

pytestmark = pytest.mark.queue

NAME = "hostile-files"


def _slots(folder: Path) -> List[int]:
    return [slot["pid"] for report in read_heartbeats(folder) for slot in report["slots"]]


@pytest.mark.timeout(300)
def test_every_job_ends_typed_and_no_slot_is_lost(
    broker: str, tmp_path: Path, start_worker: Callable[..., subprocess.Popen], seed: int
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside/secret.png"
    root.mkdir()
    outside.parent.mkdir()
    Image.new("RGB", (40, 30), (200, 10, 10)).save(outside)
    files = write_files(root, outside, seed)
    limits = {"POSE_MAX_BYTES": 1 << 20, "POSE_MAX_PIXELS": 10_000_000, "POSE_SOFT_TIME_LIMIT_S": 20}
    names = {"POSE_QUEUE": NAME, "POSE_KEY_PREFIX": NAME, "POSE_HEARTBEAT_DIR": tmp_path / "beats"}
    # Its log goes into a file: nobody reads the pipe, and this many lines would fill it.
    worker = start_worker(
        "cpu0",
        "--logfile",
        str(tmp_path / "log"),
        POSE_BROKER_URL=broker,
        POSE_ENGINE="null",
        POSE_IMAGE_ROOTS=root,
        **limits,
        **names,
    )
    with PoseClient(broker, queue=NAME, key_prefix=NAME) as client:
        client.submit(files["decoded"][0], overlay=False).result(90)
        slots = _slots(tmp_path / "beats")
        jobs = {
            client.submit(path, overlay=False).id: (kind, path)
            for kind, paths in files.items()
            for path in paths
            if path.startswith("/") and "\0" not in path
        }
        assert len(jobs) >= 300
        ends: Dict[str, str] = {}
        for job, outcome in client.as_completed([client.job(job_id) for job_id in jobs], timeout=60):
            kind, path = jobs[job.id]
            assert isinstance(outcome, (Result, ImageError, InvalidRequest)), (path, outcome)
            assert getattr(outcome, "attempt", 1) == 1
            ends[job.id] = "decoded" if isinstance(outcome, Result) else "refused"
            assert kind in ("either", ends[job.id]), (path, outcome)
        assert len(ends) == len(jobs)
        assert client.submit(files["decoded"][0], overlay=False).result(30).attempt == 1
        assert _slots(tmp_path / "beats") == slots
    assert stop_child(worker, grace_s=20) == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("limit", "value", "shape", "options", "error"),
    [
        ("POSE_MAX_NET_PIXELS", 500_000, (300, 100), {"target_height": 600}, JobTooLarge),
        ("POSE_MAX_NET_MB", 600, (100, 100), {"target_height": 2048}, JobTooLarge),
        ("POSE_MAX_SLOT_MB", 256, (6000, 6000), {}, ImageTooLarge),
        ("POSE_DECODE_LIMIT_S", 0.05, (6000, 6000), {}, ImageTooLarge),
    ],
)
def test_what_takes_too_much_ends_at_its_first_attempt_and_its_neighbour_is_done(
    broker: str,
    tmp_path: Path,
    start_worker: Callable[..., subprocess.Popen],
    limit: str,
    value: float,
    shape: Any,
    options: Dict[str, Any],
    error: Type[PermanentError],
) -> None:
    """Its slot is killed while it decodes, or together with the net process that has its input."""
    large, small = tmp_path / "large.jpg", tmp_path / "small.png"
    Image.new("RGB", shape).save(large, progressive=True)
    Image.new("RGB", (64, 48)).save(small)
    name = limit.lower().replace("_", "-")
    names = {"POSE_QUEUE": name, "POSE_KEY_PREFIX": name, "POSE_HEARTBEAT_DIR": tmp_path}
    worker = start_worker(
        "cpu0",
        "--logfile",
        str(tmp_path / "log"),
        POSE_BROKER_URL=broker,
        POSE_IMAGE_ROOTS=tmp_path,
        **{limit: value},
        **names,
    )
    with PoseClient(broker, queue=name, key_prefix=name) as client:
        assert client.submit(str(small)).result(60).attempt == 1
        job, *neighbours = client.submit(str(large), **options), *(client.submit(str(small)) for _ in range(5))
        with pytest.raises(error, match=limit):
            job.result(60)
        assert sum(one.result(60).attempt for one in neighbours) <= 6  # one may have lost the net process
        record = Ledger(redis.Redis.from_url(broker), name).show(job.id)
        assert (record["state"], record["attempts"]) == ("failed", "1")
    assert stop_child(worker, grace_s=20) == 0


@pytest.mark.timeout(120)
def test_nothing_is_kept_of_files_that_were_refused(
    broker: str, tmp_path: Path, start_worker: Callable[..., subprocess.Popen]
) -> None:
    """An error holds what its frames held: within some jobs, that would be more than a slot may have."""
    name, beats, path = "refused-files", tmp_path / "beats", tmp_path / "zeros"
    path.write_bytes(bytes(20_000_000))
    names = {"POSE_QUEUE": name, "POSE_KEY_PREFIX": name, "POSE_HEARTBEAT_DIR": beats, "POSE_SLOTS": 1}
    worker = start_worker("cpu0", POSE_BROKER_URL=broker, POSE_ENGINE="null", POSE_IMAGE_ROOTS=tmp_path, **names)
    held = []
    with PoseClient(broker, queue=name, key_prefix=name) as client:
        for _ in range(8):
            with pytest.raises(ImageUndecodable):
                client.submit(str(path)).result(60)
            held.append(sum(psutil.Process(pid).memory_info().rss for pid in _slots(beats)))
    assert max(held) - held[0] < 50_000_000, held
    assert stop_child(worker, grace_s=20) == 0
