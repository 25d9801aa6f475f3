"""A worker that reads from S3 and stores into it, also when S3 is away for a while."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable

import pytest

from tests.objects import environment, s3_server, use
from tests.support import wait_until
from worker import s3
from worker.client import PoseClient
from worker.errors import ImageNotAllowed
from worker.processes import stop_child

pytestmark = [
    pytest.mark.queue,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),  # botocore's own
]

PATIENCE = 60


def test_from_s3_into_s3_and_an_outage_in_between(
    broker: str,
    samples: Path,
    start_worker: Callable[..., subprocess.Popen],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with s3_server() as url:
        use(url, monkeypatch)
        files = s3.filesystem()
        files.mkdir("photos")
        files.pipe_file("photos/in/bus.jpg", (samples / "bus.jpg").read_bytes())
        worker = start_worker(
            "cpu6",
            POSE_BROKER_URL=broker,
            POSE_QUEUE="objects",
            POSE_ENGINE="null",
            POSE_IMAGE_ROOTS=f"s3://photos/in:{samples}",
            POSE_OVERLAY_STORE="s3://photos/drawn",
            POSE_RETRY_BASE_S=0.5,
            POSE_RETRY_MAX_S=1,
            POSE_MAX_ATTEMPTS=50,
            **environment(url),
        )
        with PoseClient(broker, queue="objects") as client:
            job = client.submit("s3://photos/in/bus.jpg")
            result = job.result(PATIENCE)
            assert result.overlay is not None
            assert result.overlay.url == f"s3://photos/drawn/pose/overlay/{job.id}.jpg"
            assert len(job.overlay() or b"") == result.overlay.bytes
            with pytest.raises(ImageNotAllowed):
                client.submit("s3://photos/drawn/bus.jpg").result(PATIENCE)
            files.rm("photos/drawn", recursive=True)
            files.rm("photos/in", recursive=True)
            files.rmdir("photos")  # the store is away
            late = client.submit(samples / "bus.jpg")
            wait_until(lambda: late.state == "RETRY", PATIENCE)
            files.mkdir("photos")  # and back
            assert late.result(PATIENCE).attempt > 1
            assert late.overlay()
    s3.forget()
    assert stop_child(worker, grace_s=20) == 0
