"""What only a GPU can show: a worker sees its own, memory that ends is survived, and half precision finds the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch

from tests.support import ROOT, clean_environ
from tests.support.net_server import Running
from worker.client import PoseClient
from worker.device.gpus import memory, visible_gpus
from worker.device.pin import Device, own_device
from worker.engine import load
from worker.settings import read_settings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]

_SEEN = "import torch; print(*(torch.cuda.get_device_properties(i).uuid for i in range(torch.cuda.device_count())))"


def _seen(device: Device) -> str:
    """The UUIDs of the GPUs that a process sees which is started for `device`."""
    environment = {**clean_environ(), **device.environment}
    return subprocess.run(
        [sys.executable, "-c", _SEEN], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_worker_sees_its_gpu_and_no_other() -> None:
    gpus = visible_gpus()
    assert gpus
    for gpu in gpus:
        device = own_device(read_settings({}), f"gpu{gpu.number}@host")
        assert device.gpu == gpu
        seen = _seen(device)
        assert len(seen.split()) == 1
        assert gpu.uuid.endswith(seen)
    assert _seen(Device()) == ""
    total = memory(gpus[0].uuid)
    assert total is not None
    assert 0 < total.used < total.total


def test_a_batch_that_does_not_fit_is_tried_in_halves(thin_net: Path) -> None:
    """The net is allowed what two inputs take, and eight are asked for at once."""
    net: Any = load(thin_net, device="cuda:0", precision="fp16")
    inputs = np.zeros((2, 1024, 1024, 3), np.uint8)
    net(inputs)  # what the libraries take at their first use stays
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    net(inputs)
    allowed = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    running = Running(thin_net, net, half=True)
    try:
        answers = running.ask([(number, 0) for number in range(8)], side=1024)
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        assert running.board.net.out_of_memory > 0
        assert running.board.net.inputs == 8
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        running.stop()
        net.close()


@pytest.mark.queue
@pytest.mark.parametrize("compiled", ["off", "graph"])
def test_a_worker_on_a_gpu_finds_whom_one_on_the_cpu_finds(
    start_worker: Callable[..., subprocess.Popen], broker: str, samples: Path, compiled: str
) -> None:
    places = {}
    for name, variables in (("cpu0", {}), ("gpu0", {"POSE_COMPILE": compiled, "POSE_SHARE_DEVICE": 1})):
        queue = f"{name}-{compiled}"
        start_worker(name, POSE_BROKER_URL=broker, POSE_IMAGE_ROOTS=samples, POSE_QUEUE=queue, **variables)
        with PoseClient(broker, queue=queue) as client:
            jobs = [client.submit(samples / "bus.jpg", overlay=False) for _ in range(6)]
            results = [job.result(100) for job in jobs]
        assert results[0].device.startswith(name[:3])
        necks = [sorted(person.keypoints[1][:2] for person in one.people if person.keypoints[1]) for one in results]
        places[name] = np.array(necks)
        assert (places[name].std(axis=0) < 0.5).all()
    assert places["cpu0"].shape == places["gpu0"].shape
    assert np.abs(places["cpu0"] - places["gpu0"]).max() < 3  # pixels of 810x1080
