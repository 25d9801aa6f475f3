"""A slot's time limits: what they end, and what they do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Iterator

import pytest

from tests.support import ROOT
from worker.device.board import Board, now
from worker.process.life import Life, TimeUp


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    """This process's, a slot as far as it knows, without its threads."""
    monkeypatch.setattr("threading.Thread.start", lambda self: None)
    monkeypatch.setattr("signal.pthread_sigmask", lambda *_: None)
    before = signal.getsignal(signal.SIGALRM)
    yield Life(Board.create(), 0)
    signal.signal(signal.SIGALRM, before)


def sleep_through(seconds: float) -> None:
    """Sleep, and longer if a signal comes in between, as a library may."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


def test_the_soft_limit_ends_work_and_nothing_else(life: Life) -> None:
    with pytest.raises(TimeUp), life.at_work(0.05):
        sleep_through(5)
    with life.at_work(0.05):
        pass
    sleep_through(0.2)  # what has happened is being noted, and the timer runs no more


def test_it_does_so_once_so_that_what_was_begun_can_be_cleared_up(life: Life) -> None:
    cleared = []

    def work() -> None:
        try:
            sleep_through(5)
        finally:
            os.kill(os.getpid(), signal.SIGALRM)
            sleep_through(0.05)
            cleared.append(True)

    with pytest.raises(TimeUp), life.at_work(0.05):
        work()
    assert cleared


def test_what_a_decoder_is_guarded_with_does_not_take_it_for_an_error(life: Life) -> None:
    def decode() -> None:
        try:
            sleep_through(5)
        except Exception:
            return

    with pytest.raises(TimeUp), life.at_work(0.05):
        decode()


def test_each_job_has_a_limit_of_its_own(life: Life) -> None:
    for _ in range(3):
        with pytest.raises(TimeUp), life.at_work(0.02):
            sleep_through(5)


def test_the_parent_sees_since_when_a_slot_works(monkeypatch: pytest.MonkeyPatch, life: Life) -> None:
    row = life._row
    life.begin()
    assert row.working_since == 0.0  # the attempt is being noted; Redis may be away for hours
    with life.at_work(60):
        assert now() - row.working_since < 5
    assert row.working_since == 0.0
    assert row.busy_since


#: A slot that works in C and hears no signal, and its parent, whose hard limit is 1 s.
STUCK = """
import ctypes, os, sys
from types import SimpleNamespace
from worker.device.board import Board
from worker.process.parent import Parent
board = Board.create()
child = os.fork()
if child == 0:
    from worker.process.life import Life
    life = Life(board, 0)
    life.begin()
    with life.at_work(0.2):
        libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)  # PyDLL: no thread of the slot runs, either
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)  # waits for itself
parent = object.__new__(Parent)
parent.settings = SimpleNamespace(hard_time_limit_s=1.0)
parent.board, parent.slots, parent.killed = board, 1, {}
while not parent.killed:
    parent._look_after_slots()
print(parent.killed[child], os.waitpid(child, 0)[1])
"""


def test_a_call_into_c_that_never_returns_costs_the_slot() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"its slot was killed after 1 s, the hard time limit {int(signal.SIGKILL)}", (
        done.stderr
    )
