"""Real workers whose device breaks, or never answers again: as their processes see it, for there is no GPU in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.support import ROOT, clean_environ, wait_until
from worker.children import stop_child
from worker.client import PoseClient
from worker.observe.heartbeat import read_heartbeats
from worker.process.fleet import worker_command

pytestmark = pytest.mark.queue


@pytest.fixture
def start(broker: str, samples: Path, thin_net: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a worker with a null net, and with `custom` run by Python itself before everything in each process."""
    workers: List[subprocess.Popen] = []

    def begin(name: str, custom: str, **variables: Any) -> subprocess.Popen:
        (tmp_path / "sitecustomize.py").write_text(f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\n{custom}")
        chosen: Dict[str, Any] = {
            "PYTHONPATH": tmp_path,
            "POSE_BROKER_URL": broker,
            "POSE_QUEUE": tmp_path.name,
            "POSE_ENGINE": "null",
            "POSE_IMAGE_ROOTS": samples,
            "POSE_HEARTBEAT_DIR": tmp_path / "heartbeats",
            "POSE_RETRY_BASE_S": 0.2,
            **variables,
        }
        environment = {**clean_environ(), **{key: str(value) for key, value in chosen.items()}}
        with (tmp_path / "log").open("a") as log:
            workers.append(subprocess.Popen(worker_command(name), cwd=ROOT, env=environment, stdout=log, stderr=log))
        wait_until(lambda: any(one["ready"] for one in read_heartbeats(tmp_path / "heartbeats")))
        return workers[-1]

    yield begin
    for worker in workers:
        stop_child(worker, grace_s=10)


#: A process that is killed goes on: what the parent sees of one that waits in the driver for a GPU.
_UNKILLABLE = """
import subprocess
subprocess.Popen.kill = lambda self: None
from worker.device import net_process
net_process._END_S = 1.0
"""


def test_a_worker_whose_net_process_never_ends_stops_consuming_and_ends(
    start: Callable[..., subprocess.Popen], broker: str, samples: Path, tmp_path: Path
) -> None:
    worker = start("cpu0", _UNKILLABLE, POSE_NET_TIMEOUT_S=2, POSE_GRACE_S=5)
    [report] = read_heartbeats(tmp_path / "heartbeats")
    [net] = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and _is_net_of(one, report["pid"])]
    os.kill(net, signal.SIGSTOP)
    try:
        with PoseClient(broker, queue=tmp_path.name) as client:
            job = client.submit(samples / "bus.jpg", overlay=False)
            assert worker.wait(60) == 1
            text = (tmp_path / "log").read_text()
            assert f"pose worker: The net process {net} was killed and does not end" in text
            start("cpu1", "")
            assert job.result(60).attempt <= 2
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(net, signal.SIGKILL)


def _is_net_of(process: Path, parent: int) -> bool:
    try:
        stat, command = (process / "stat").read_text(), (process / "cmdline").read_bytes()
    except OSError:
        return False
    return int(stat.rpartition(")")[2].split()[1]) == parent and b"worker.device.server" in command


#: The slot's own net meets, once, an error after which its process can do nothing more with the device.
_BREAKS_ONCE = """
from worker.engine import null_engine
from worker.errors import DeviceLost
fill = null_engine.NullNet.fill
def once(self, inputs, maps):
    if not os.path.exists(os.environ["BROKEN"]):
        with open(os.environ["BROKEN"], "w") as seen:
            seen.write(os.environ["CUDA_VISIBLE_DEVICES"])
        raise DeviceLost("cuda:0 does not work any more (an illegal memory access).")
    fill(self, inputs, maps)
null_engine.NullNet.fill = once
"""


def test_a_slot_that_holds_the_net_sees_its_gpu_alone_and_leaves_a_broken_one(
    start: Callable[..., subprocess.Popen], broker: str, samples: Path, tmp_path: Path
) -> None:
    fakes = os.pathsep.join((str(tmp_path), str(ROOT / "tests/support/fakes")))
    variables = {"PYTHONPATH": fakes, "FAKE_GPUS": f"{tmp_path.name}a,{tmp_path.name}b", "BROKEN": tmp_path / "broken"}
    worker = start("gpu1", _BREAKS_ONCE, POSE_INLINE=1, **variables)
    with PoseClient(broker, queue=tmp_path.name) as client:
        result = client.submit(samples / "bus.jpg", overlay=False).result(60)
    assert (result.attempt, result.device) == (2, "gpu1 Fake H100")
    assert worker.poll() is None
    assert "cuda:0 does not work any more (an illegal memory access)" in (tmp_path / "log").read_text()
    assert (tmp_path / "broken").read_text() == f"GPU-{tmp_path.name}b"
