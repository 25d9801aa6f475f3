"""Inputs and maps through shared memory, against the real net process with a net that does nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import pytest

from tests.support import ROOT, wait_until
from worker.device import channel, net_process
from worker.device.board import READY, Board
from worker.device.channel import RemoteNet
from worker.device.net_process import NetProcess
from worker.device.pin import Device
from worker.engine import load
from worker.engine.manifest import read_manifest
from worker.errors import DeviceLost, ModelError
from worker.settings import read_settings


class Running:
    """A net process and what belongs to it."""

    def __init__(self, environment: Dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        self.settings = read_settings({k: str(v) for k, v in environment.items() if k.startswith("POSE_")})
        self.board = Board.create()
        self.host = NetProcess(self.settings, Device(), "cpu0@here", self.board)
        self._nets: List[RemoteNet] = []

    def net(self, timeout_s: float = 30.0) -> RemoteNet:
        """A new slot's way to it."""
        manifest = read_manifest(self.settings.models_dir / self.settings.model)
        net = RemoteNet(self.host.address, manifest, timeout_s=timeout_s)
        self._nets.append(net)
        return net

    def stop(self) -> None:
        """Close all of it."""
        for net in self._nets:
            net.close()
        self.host.stop(2.0)


Run = Callable[..., Running]


@pytest.fixture
def run(thin_net: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Start a net process with the given environment; by default its net does nothing."""
    started: List[Running] = []

    def start(**environment: Any) -> Running:
        running = Running({"POSE_ENGINE": "null", "POSE_NET_TIMEOUT_S": 1.5, **environment}, monkeypatch)
        started.append(running)
        running.host.launch()
        running.host.await_ready()
        return running

    yield start
    for running in started:
        running.stop()


def inputs(seed: int, height: int = 96, width: int = 64, count: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def test_maps_are_those_of_the_net_itself(run: Run, thin_net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_FIRST_ARENA_BYTES", 64 << 10)
    sharing = {"POSE_MAX_BATCH": 3, "POSE_BATCH_WAIT_MS": 20_000}
    running = run(POSE_ENGINE="torch", POSE_WARM_SIZES="64x64", POSE_NET_TIMEOUT_S=30, **sharing)
    remote, local = running.net(30.0), load(thin_net)
    for seed, (height, width, count) in enumerate([(64, 64, 1), (96, 136, 2), (8, 8, 1), (64, 64, 3)]):
        given = inputs(seed, height, width, count)
        remote.begin()
        room = remote.empty(given.shape)
        room[...] = given
        found, expected = remote(room), local(given)
        for here, there in zip(found, expected):
            assert here.dtype == np.float32
            np.testing.assert_allclose(here, there, atol=1e-5)
        remote.end()
    # Maps of one job stay valid together, although they are more than the first arena holds.
    remote.begin()
    first = remote(inputs(1))
    copy = first[0].copy()
    for seed in range(2, 8):
        remote(inputs(seed))
    np.testing.assert_array_equal(first[0], copy)
    remote.end()
    _share_a_pass(running, local)


def _share_a_pass(running: Running, local: Any) -> None:
    """Inputs of three slots in one pass have the maps that they have alone."""
    nets, given = [running.net(30.0) for _ in range(3)], [inputs(seed) for seed in range(20, 23)]
    before = running.board.net.inputs - running.board.net.batches
    for net in nets:
        net.begin()
    found: Dict[int, Any] = {}
    _together([lambda i=i: found.update({i: nets[i](given[i])}) for i in range(3)])
    assert running.board.net.inputs - running.board.net.batches > before
    for i in range(3):
        for here, there in zip(found[i], local(given[i])):
            np.testing.assert_allclose(here, there, atol=1e-4)


def test_slots_share_passes(run: Run) -> None:
    running = run(POSE_MAX_BATCH=4, POSE_BATCH_WAIT_MS=20_000, NULL_NET_MS="20")
    nets = [running.net(30.0) for _ in range(4)]
    for net in nets:
        net.begin()
    _together([lambda net=net: net(inputs(0)) for net in nets])
    assert (running.board.net.batches, running.board.net.inputs) == (1, 4)


def test_a_slot_whose_input_will_not_come_is_not_waited_for(run: Run) -> None:
    running = run(POSE_MAX_BATCH=4, POSE_BATCH_WAIT_MS=20_000, POSE_NET_TIMEOUT_S=30)
    one, other = running.net(), running.net()
    one.begin()
    other.begin()
    threading.Timer(0.2, other.end).start()
    start = time.monotonic()
    one(inputs(0))
    assert time.monotonic() - start < 15  # the batch would be waited for 20


def test_a_net_that_dies_costs_its_inputs_and_nothing_else(run: Run) -> None:
    running = run(NULL_NET_MS="1000")
    net = running.net()
    threading.Timer(0.3, os.kill, (running.board.net.pid, signal.SIGKILL)).start()
    with pytest.raises(DeviceLost, match="ended while it held"):
        net(inputs(0))
    _watch_until_ready(running)
    assert net(inputs(0))[0].shape == (1, 19, 12, 8)
    assert running.host.restarts == 1


def test_a_net_that_hangs_is_killed_and_started_again(run: Run) -> None:
    running = run(POSE_NET_TIMEOUT_S=1)
    net, patient = running.net(), running.net()
    net(inputs(0))
    os.kill(running.board.net.pid, signal.SIGSTOP)
    lost = []

    def ask(which: RemoteNet) -> None:
        try:
            which(inputs(0))
        except DeviceLost:
            lost.append(which)

    threads = [threading.Thread(target=ask, args=(which,)) for which in (net, patient)]
    for thread in threads:
        thread.start()
    _watch_until_ready(running)  # here: a process that a thread has started ends with the thread
    for thread in threads:
        thread.join()
    assert lost == [net]
    assert net(inputs(0))[0].shape == (1, 19, 12, 8)


def test_a_net_that_keeps_dying_is_given_up(run: Run) -> None:
    running = run()

    def kill_and_watch() -> bool:
        if running.board.net.state == READY:
            os.kill(running.board.net.pid, signal.SIGKILL)
        running.host._start_at = 0.0  # without the pauses
        running.host.keep_running()
        return False

    with pytest.raises(DeviceLost, match="giving up"):
        wait_until(kill_and_watch, 60)


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_jobs(run: Run) -> None:
    running = run(NULL_NET_MS="600", POSE_NET_TIMEOUT_S=30)
    net = running.net(0.3)
    with pytest.raises(DeviceLost, match="did not answer within"):
        net(inputs(0))
    net._timeout_s = 30.0
    assert net(inputs(0, 64, 64))[0].shape == (1, 19, 8, 8)


def test_not_even_if_clearing_up_after_it_was_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    running = run(NULL_NET_MS="600", POSE_NET_TIMEOUT_S=30)
    net = running.net(0.3)

    def interrupted(self: RemoteNet) -> None:
        raise InterruptedError

    with monkeypatch.context() as broken:
        broken.setattr(RemoteNet, "_abandon", interrupted)
        with pytest.raises(InterruptedError):
            net(inputs(0))
    arena = net._arena
    net._timeout_s = 30.0
    net.begin()
    assert net._arena is not arena
    assert net(inputs(0, 64, 64))[0].shape == (1, 19, 8, 8)


def test_a_wrong_input_fails_alone(run: Run) -> None:
    running = run()
    bad, good = running.net(), running.net()
    with pytest.raises(DeviceLost):
        bad(inputs(0, 97, 64))  # not a multiple of the stride
    assert good(inputs(0))[0].shape == (1, 19, 12, 8)


def test_nothing_is_left_of_a_killed_slot(run: Run) -> None:
    running = run()
    child = os.fork()
    if child == 0:
        net = running.net()
        net.begin()
        net(inputs(0))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    def arenas() -> List[str]:
        found = []
        for link in Path(f"/proc/{running.board.net.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in the meantime
                found.append(str(link.readlink()))
        return [name for name in found if "pose-arena" in name]

    wait_until(lambda: not arenas())


def test_the_net_process_dies_with_its_worker(thin_net: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from worker.settings import read_settings\n"
        "from worker.device.board import Board\n"
        "from worker.device.net_process import NetProcess\n"
        "from worker.device.pin import Device\n"
        "host = NetProcess(read_settings({'POSE_ENGINE': 'null'}), Device(), 'cpu0', board := Board.create())\n"
        "host.launch(); host.await_ready(); print(board.net.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "POSE_ENGINE": "null"}
    ) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        worker.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_signals_to_the_whole_group_do_not_take_the_net(run: Run) -> None:
    running = run()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(running.board.net.pid, signum)
    time.sleep(0.2)
    assert running.net()(inputs(0))[0].shape == (1, 19, 12, 8)


def test_a_net_that_cannot_be_loaded_says_why(run: Run, tmp_path: Path, thin_net: Path) -> None:
    copy = shutil.copytree(thin_net, tmp_path / "mobilenet_thin")
    (copy / "init_net.pb").write_bytes(b"another net")
    with pytest.raises(ModelError, match="init_net"):
        run(POSE_MODELS_DIR=tmp_path)


def test_why_it_could_not_be_started_again_is_logged(
    run: Run, tmp_path: Path, thin_net: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(thin_net, tmp_path / "mobilenet_thin")
    running = run(POSE_MODELS_DIR=tmp_path)
    (copy / "init_net.pb").write_bytes(b"another net")
    os.kill(running.board.net.pid, signal.SIGKILL)

    def said() -> bool:
        running.host.keep_running()
        return any("The net process died with status 1 (" in line and "init_net" in line for line in caplog.messages)

    wait_until(said)


def test_a_process_that_does_not_even_end_when_it_is_killed_holds_nobody_up(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits in the driver for a GPU that does not answer."""
    running = run()
    process: Any = running.host._process
    monkeypatch.setattr(process, "kill", lambda: None)
    monkeypatch.setattr(net_process, "_END_S", 0.5)
    os.kill(running.board.net.pid, signal.SIGSTOP)
    longest = 0.0

    def look() -> bool:
        nonlocal longest
        since = time.monotonic()
        running.host.keep_running()
        longest = max(longest, time.monotonic() - since)
        return False

    try:
        with pytest.raises(DeviceLost, match=f"The net process {process.pid} was killed and does not end.*restart the"):
            wait_until(look)
        assert longest < 0.3  # the keeper looks after the slots, too
        since = time.monotonic()
        running.host.stop(30.0)
        assert time.monotonic() - since < 5
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_one_that_does_not_end_at_the_end_is_left_behind(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = run()
    process: Any = running.host._process
    monkeypatch.setattr(process, "kill", lambda: None)
    monkeypatch.setattr(net_process, "_END_S", 0.2)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        running.host.stop(0.1)
        assert "was killed and does not end" in caplog.text
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


#: Loaded by Python itself, before the net process: its net loses the device, and an ordinary end would take for ever.
_BROKEN_DEVICE = f"""
import sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from worker.engine import null_engine
from worker.errors import DeviceLost
def fill(self, inputs, maps):
    raise DeviceLost("cuda:0 does not work any more (an illegal memory access).")
null_engine.NullNet.fill = fill
threading.Thread(target=time.sleep, args=(600,)).start()
"""


def test_a_process_whose_device_is_broken_ends_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_BROKEN_DEVICE)
    running = run(PYTHONPATH=tmp_path)
    process: Any = running.host._process
    with pytest.raises(DeviceLost, match="illegal memory access"):
        running.net()(inputs(0))
    assert process.wait(10) == 1


def _together(calls: List[Callable[[], Any]]) -> None:
    """Run `calls` in threads; the first error of one of them is raised."""
    errors: List[BaseException] = []

    def guarded(call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    if errors:
        raise errors[0]


def _watch_until_ready(running: Running, deaths: int = 1) -> None:
    def ready() -> bool:
        running.host.keep_running()
        return running.host.restarts >= deaths and running.board.net.state == READY

    wait_until(ready)
