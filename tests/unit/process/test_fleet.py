"""The supervisor: workers that die are started again, signals are passed on, and the exit status tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from tests.support import ROOT, wait_until

#: Runs a fleet of two whose workers are the program given as the first argument.
_FLEET = """
import logging, sys
from worker.process.fleet import Fleet
logging.basicConfig(level=logging.INFO)
sys.exit(Fleet(["cpu0", "cpu1"], 1.0, lambda name: [sys.executable, "-c", sys.argv[1], name], 0.01).run())
"""
_OBEDIENT = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
)
_DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)


class Running:
    """A fleet in a process of its own; what its workers and it say is in `log`."""

    def __init__(self, program: str, log: Path) -> None:
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen([sys.executable, "-c", _FLEET, program], cwd=ROOT, stdout=file, stderr=file)

    @property
    def text(self) -> str:
        return self._log.read_text()

    def workers(self) -> List[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]


Run = Callable[[str], Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    fleets: List[Running] = []

    def start(program: str) -> Running:
        fleets.append(Running(program, tmp_path / "log"))
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


def test_workers_that_keep_dying_are_given_up_with_their_status(run: Run) -> None:
    fleet = run("import sys; sys.exit(3 if sys.argv[1] == 'cpu1' else 0 * __import__('time').sleep(60))")
    assert fleet.process.wait(60) == 3
    assert "Worker cpu1 ended with status 3; it is started again in 0.02 s" in fleet.text
    assert "Worker cpu1 ended with status 3, the 6th time; giving up" in fleet.text


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
