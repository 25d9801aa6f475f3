"""A slot's time limits: what they end, and what they do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, Iterator

import pytest
from PIL import Image

from tests.support import ROOT
from worker.device.board import Board, now
from worker.errors import ImageTooLarge
from worker.images.policy import ImagePolicy
from worker.process.life import Life, TimeUp
from worker.process.slot import Slot
from worker.settings import read_settings


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


def test_the_parent_sees_that_an_image_is_decoded(life: Life) -> None:
    row = life._row
    with life.decoding():
        assert 0 < row.decodes_from <= time.process_time()
    assert row.decodes_from == 0.0
    with pytest.raises(TimeUp), life.at_work(0.05), life.decoding():
        sleep_through(5)
    assert row.decodes_from == 0.0


def test_an_image_that_is_not_decoded_in_time_is_not_tried_again(tmp_path: Path, life: Life) -> None:
    path = tmp_path / "large.jpg"
    Image.new("RGB", (6000, 6000)).save(path, progressive=True, subsampling=0)
    slot = object.__new__(Slot)
    slot.life, slot.settings = life, read_settings({"POSE_SOFT_TIME_LIMIT_S": "0.1"})
    slot.policy, slot._untidy = ImagePolicy(roots=(str(tmp_path),)), False
    with pytest.raises(ImageTooLarge, match=r"was not decoded within 0\.1 s"), life.at_work(0.1):
        slot.load_image(str(path), SimpleNamespace(age_s=0.0))


#: A slot that does `work`, and its parent, which looks until it has killed it.
SLOT = """
import ctypes, os, sys
from worker.children import die_with_parent
from worker.device.board import Board
from worker.process.parent import Parent
from worker.settings import read_settings
board = Board.create()
child = os.fork()
if child == 0:
    from worker.process.life import Life
    die_with_parent()
    life = Life(board, 0)
    life.begin()
    with life.at_work(60):
        {work}
parent = object.__new__(Parent)
parent.settings = read_settings({settings})
parent.board, parent.slots, parent.killed = board, 1, {{}}
while not parent.killed:
    parent._look_after_slots()
why, error = parent.killed[child]
print(why, os.waitpid(child, 0)[1], repr(error), sep="|")
"""
#: Waits for itself, in C, with PyDLL: no thread of the slot runs, either.
HANG = "libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)"
HANG += "; libc.pthread_mutex_lock(mutex); libc.pthread_mutex_lock(mutex)"
DECODE = "decoding = life.decoding(); decoding.__enter__()"
SOFT_AND_HARD = {"POSE_SOFT_TIME_LIMIT_S": "0.5", "POSE_HARD_TIME_LIMIT_S": "1"}


@pytest.mark.parametrize(
    ("work", "variables", "why", "error"),
    [
        (HANG, SOFT_AND_HARD, "its slot was killed after 1 s, the hard time limit", "None"),
        # What is decoded would take as long the next time.
        (
            f"{DECODE}; {HANG}",
            SOFT_AND_HARD,
            "after 1 s, the hard time limit",
            "ImageTooLarge('The image was not decoded",
        ),
        (
            f"{DECODE}; exec('while True: pass')",
            {"POSE_DECODE_LIMIT_S": "0.5"},
            "too much memory or processor time",
            "ImageTooLarge('The image took more than 0.5 s of processor time to decode",
        ),
        (
            f"{DECODE}; held = b'1' * (700 << 20); {HANG}",
            {"POSE_MAX_SLOT_MB": "600"},
            "too much memory or processor time",
            "ImageTooLarge('The image took more than 600 MB to decode",
        ),
        (
            f"held = b'1' * (700 << 20); {HANG}",
            {"POSE_MAX_SLOT_MB": "600"},
            "too much memory or processor time",
            "JobTooLarge('The job took more than 600 MB",
        ),
    ],
    ids=["hangs", "hangs in decoding", "processor time", "memory in decoding", "memory"],
)
def test_a_slot_beyond_its_limits_is_killed(work: str, variables: Dict[str, str], why: str, error: str) -> None:
    script = SLOT.format(work=work, settings=variables)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said, status, ends_in = done.stdout.strip().split("|")
    assert why in said
    assert ends_in.startswith(error)
    assert int(status) == signal.SIGKILL


def test_a_slot_that_holds_the_net_may_hold_what_both_may() -> None:
    assert read_settings({"POSE_MAX_SLOT_MB": "100", "POSE_MAX_NET_MB": "900", "POSE_INLINE": "1"}).most_slot_mb == 1000
    assert read_settings({"POSE_MAX_SLOT_MB": "100", "POSE_MAX_NET_MB": "0", "POSE_INLINE": "1"}).most_slot_mb == 0
    assert read_settings({"POSE_MAX_SLOT_MB": "100", "POSE_MAX_NET_MB": "900"}).most_slot_mb == 100
