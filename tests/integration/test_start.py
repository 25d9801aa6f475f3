"""A worker that cannot do its work says why, in one sentence, and leaves with an exit status."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, Tuple

import psutil
import pytest
import redis

from tests.support import ROOT, clean_environ, wait_until

pytestmark = pytest.mark.queue


def _ended(child: subprocess.Popen) -> Tuple[int, str]:
    _, stderr = child.communicate(timeout=90)
    return child.returncode, stderr.decode()


Start = Callable[..., subprocess.Popen]


def test_a_missing_net_ends_the_worker(start_worker: Start, broker: str, tmp_path: Path) -> None:
    status, stderr = _ended(start_worker(POSE_BROKER_URL=broker, POSE_MODELS_DIR=tmp_path))
    assert status == 1
    assert f"{tmp_path}/mobilenet_thin" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


def test_a_corrupt_net_ends_the_worker(start_worker: Start, broker: str, tmp_path: Path, thin_net: Path) -> None:
    copy = shutil.copytree(thin_net, tmp_path / "mobilenet_thin")
    (copy / "init_net.pb").write_bytes((thin_net / "init_net.pb").read_bytes()[:-1000])
    status, stderr = _ended(start_worker(POSE_BROKER_URL=broker, POSE_MODELS_DIR=tmp_path))
    assert status == 1
    assert "init_net.pb" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--pool", "solo"), "--pool prefork"), (("--concurrency", "3"), "--concurrency must be 1 (got 3)")],
)
def test_what_would_lose_jobs_is_refused(
    start_worker: Start, broker: str, arguments: Tuple[str, str], told: str
) -> None:
    status, stderr = _ended(start_worker("cpu0", *arguments, POSE_BROKER_URL=broker, POSE_INLINE=1))
    assert status == 1
    assert told in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


def test_nothing_is_consumed_before_the_net_is_ready(
    start_worker: Start, broker: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    from worker.client import PoseClient

    with PoseClient(broker, queue="early") as client:
        job = client.submit(tmp_path / "a.jpg")
        child = start_worker(POSE_BROKER_URL=broker, POSE_MODELS_DIR=tmp_path, POSE_QUEUE="early")
        assert _ended(child)[0] == 1
        assert redis_client.llen("early") == 1
        assert job.state == "PENDING"


def test_a_worker_on_a_cpu_does_not_load_torch(start_worker: Start, broker: str, samples: Path) -> None:
    from worker.client import PoseClient

    child = start_worker(POSE_BROKER_URL=broker, POSE_DEVICE="cpu", POSE_QUEUE="no-torch", POSE_IMAGE_ROOTS=samples)
    with PoseClient(broker, queue="no-torch") as client:
        assert client.submit(samples / "zidane.jpg").result(timeout=90).people
    processes = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    loaded = {one.pid: {Path(area.path).name for area in one.memory_maps()} for one in processes}
    assert any("openvino" in name for names in loaded.values() for name in names)  # the net process
    assert not [name for names in loaded.values() for name in names if "torch" in name]


def test_sigterm_while_the_net_is_loading_ends_the_worker(start_worker: Start, broker: str) -> None:
    child = start_worker(POSE_BROKER_URL=broker)
    wait_until(lambda: any("worker.device.server" in one.cmdline() for one in psutil.Process(child.pid).children()))
    child.send_signal(signal.SIGTERM)
    status, stderr = _ended(child)
    assert status == 0, stderr
    assert "Traceback" not in stderr


def test_a_fleet_without_a_broker_is_told_what_to_set() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "fleet"], cwd=ROOT, env=clean_environ(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "POSE_BROKER_URL" in done.stderr
    assert "Traceback" not in done.stderr
