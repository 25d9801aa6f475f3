"""Hundreds of hostile files through a real queue: each job ends, typed, at its first attempt; the worker goes on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable, Dict, List

import pytest
from PIL import Image

from tests.support.hostile_files import write_files
from worker.children import stop_child
from worker.client import PoseClient
from worker.contract import Result
from worker.errors import ImageError, InvalidRequest
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
