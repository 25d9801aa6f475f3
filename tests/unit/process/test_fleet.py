"""The supervisor: workers that die are started again, signals are passed on, and the exit status tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.support import ROOT, clean_environ, wait_until
from tests.support.brokers import free_port
from tests.support.metrics import get, scrape
from worker.observe.heartbeat import faults, read_heartbeats, table
from worker.settings import read_settings

#: Runs a fleet of two whose workers are the program given as the first argument.
_FLEET = """
import logging, sys
from worker.device.gpus import Gpu
from worker.device.pin import Device
from worker.process.fleet import Fleet
logging.basicConfig(level=logging.INFO)
devices = {"cpu0": Device(), "gpu7": Device(Gpu(7, "GPU-seven", "Fake H100"))}
command = lambda name: [sys.executable, "-c", sys.argv[1], name]
sys.exit(Fleet(devices, 1.0, command, 0.01, float(sys.argv[2])).run())
"""
_OBEDIENT = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
)
_DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)


class Running:
    """A fleet in a process of its own; what its workers and it say is in `log`."""

    def __init__(self, program: str, folder: Path, bench_s: float, **variables: str) -> None:
        self._log, self._heartbeats = folder / "log", folder / "heartbeats"
        environment = {**clean_environ(), "POSE_HEARTBEAT_DIR": str(self._heartbeats), **variables}
        with self._log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _FLEET, program, str(bench_s)],
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=file,
            )

    @property
    def text(self) -> str:
        return self._log.read_text()

    def reports(self) -> List[Dict[str, Any]]:
        return read_heartbeats(self._heartbeats)

    def workers(self) -> List[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    fleets: List[Running] = []

    def start(program: str, bench_s: float = 600.0, **variables: str) -> Running:
        fleets.append(Running(program, tmp_path, bench_s, **variables))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.process.kill()
        fleet.process.wait()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_worker_and_a_good_end_is_status_0(run: Run, signum: signal.Signals) -> None:
    fleet = run(_OBEDIENT)
    wait_until(lambda: fleet.text.count("up") == 2)
    workers = fleet.workers()
    fleet.process.send_signal(signum)
    assert fleet.process.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_that_are_stopped_while_they_start_end_well(run: Run) -> None:
    fleet = run("import time; print('up', flush=True); time.sleep(600)")  # Python's own way with SIGTERM
    wait_until(lambda: fleet.text.count("up") == 2)
    fleet.process.terminate()
    assert fleet.process.wait(60) == 0


def test_a_worker_that_dies_is_started_again(run: Run) -> None:
    fleet = run(_OBEDIENT)
    wait_until(lambda: fleet.text.count("up") == 2)
    os.kill(fleet.workers()[0], signal.SIGKILL)
    wait_until(lambda: fleet.text.count("up") == 3)
    assert "was ended by SIGKILL; it is started again in 0.01 s" in fleet.text
    fleet.process.terminate()
    assert fleet.process.wait(60) == 0


#: The worker of the GPU dies at once.
_BROKEN = f"import sys\nif sys.argv[1] == 'gpu7': sys.exit(3)\n{_OBEDIENT}"


def test_a_worker_that_keeps_dying_is_benched_and_the_others_go_on(run: Run) -> None:
    port = free_port() - 7
    fleet = run(_BROKEN, POSE_METRICS_PORT=str(port))
    wait_until(lambda: fleet.reports(), 60)
    [report] = fleet.reports()
    assert report["worker"].startswith("gpu7@")
    assert report["last_error"] == "It ended with status 3, the 6th time in ten minutes."
    assert table([report]).splitlines()[1].split()[1] == "benched"
    configured = read_settings({})
    assert list(faults(report, configured, ready=False)) == []  # else the others would be killed with it
    assert list(faults(report, configured, ready=True)) == [f"it is benched: {report['last_error']}"]
    samples = scrape(port + 7)
    assert get(samples, "pose_worker_benched") == 1
    assert get(samples, "pose_worker_ready") == 0
    assert "Worker gpu7 ended with status 3; it is started again in 0.02 s" in fleet.text
    assert "Worker gpu7 ended with status 3, the 6th time; the others go on without it, and it is tried" in fleet.text
    assert fleet.process.poll() is None
    assert fleet.text.count("up") == 1
    fleet.process.terminate()
    assert fleet.process.wait(60) == 3
    assert fleet.reports() == []


def test_a_benched_worker_is_tried_again_and_then_all_is_well(run: Run, tmp_path: Path) -> None:
    reset = tmp_path / "reset"
    broken = f"sys.argv[1] == 'gpu7' and not os.path.exists({str(reset)!r})"
    program = f"import sys, os\nif {broken}: sys.exit(3)\n{_OBEDIENT}"
    fleet = run(program, bench_s=1.0)
    wait_until(lambda: "the others go on without it" in fleet.text, 60)
    reset.touch()
    wait_until(lambda: fleet.text.count("up") == 2, 60)
    assert "Worker gpu7 is tried again" in fleet.text
    fleet.process.terminate()
    assert fleet.process.wait(60) == 0


def test_a_fleet_whose_workers_all_keep_dying_gives_up_with_their_status(run: Run) -> None:
    fleet = run("import sys; sys.exit(3 if sys.argv[1] == 'cpu0' else 4)")
    assert fleet.process.wait(60) in (3, 4)
    assert "No worker is left; giving up" in fleet.text


def test_workers_are_started_by_the_uuid_of_their_gpu(run: Run) -> None:
    fleet = run("import os, sys, time; print(sys.argv[1], os.environ.get('POSE_DEVICE'), flush=True); time.sleep(600)")
    wait_until(lambda: "cpu0 None" in fleet.text and "gpu7 GPU-seven" in fleet.text)


def test_a_worker_that_does_not_leave_is_killed_and_told_in_the_status(run: Run) -> None:
    fleet = run(_DEAF)
    wait_until(lambda: fleet.text.count("up") == 2)
    fleet.process.terminate()
    assert fleet.process.wait(60) == 128 + signal.SIGKILL


def test_workers_are_stopped_when_the_supervisor_is_killed(run: Run) -> None:
    fleet = run(_OBEDIENT)
    wait_until(lambda: fleet.text.count("up") == 2)
    workers = fleet.workers()
    fleet.process.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
