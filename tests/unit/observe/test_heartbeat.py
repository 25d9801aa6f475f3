"""A heartbeat shows the net process and the slots; each fault is named, and a Redis that is away is none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from tests.support import ROOT, clean_environ
from worker.device import board as boards
from worker.device.board import Board, now
from worker.device.pin import Device
from worker.observe.heart import Heart
from worker.observe.heartbeat import faults, read_heartbeats, table
from worker.settings import Settings, read_settings


@pytest.fixture
def configured(tmp_path: Path) -> Settings:
    return read_settings({"POSE_HEARTBEAT_DIR": str(tmp_path), "POSE_BROKER_URL": "redis://127.0.0.1:1/0"})


@pytest.fixture
def board() -> Board:
    """Of a worker that is well: a ready net, two slots of which one works."""
    board = Board.create()
    board.net.pid, board.net.state, board.net.beat, board.net.batches, board.net.inputs = 1, boards.READY, now(), 4, 6
    for index in range(2):
        board.slot(index).pid, board.slot(index).beat, board.slot(index).done = os.getpid(), now(), 3
    board.slot(1).busy_since = now()
    return board


def beaten(configured: Settings, board: Board, ready: bool = True) -> Dict[str, Any]:
    heart = Heart(configured, "cpu0@here", Device(), board, 2)
    heart.ready = ready
    heart.beat()
    [report] = read_heartbeats(configured.heartbeat_dir)
    return report


def sentences(configured: Settings, board: Board, **kwargs: Any) -> List[str]:
    return list(faults(beaten(configured, board, **kwargs), configured, ready=True))


def test_a_worker_that_is_well(configured: Settings, board: Board) -> None:
    board.last_error = "ä" * 300  # longer than its place
    report = beaten(configured, board)
    assert list(faults(report, configured, ready=True)) == []
    assert (report["jobs_done"], report["net"]["batches"], len(report["slots"])) == (6, 4, 2)
    assert report["last_error"].startswith("ää")
    lines = table([report]).splitlines()
    assert lines[0].split()[:3] == ["worker", "state", "net"]
    assert lines[1].split()[:2] == ["cpu0@here", "ready"]
    assert "1/2" in lines[1]
    assert "1.5" in lines[1]
    assert "\x1b" not in table([{**report, "worker": "\x1b[2Jnobody@here"}])  # whoever can write to Redis may say so


def _freeze_net(board: Board) -> None:
    board.net.beat = now() - 60


def _hang_batch(board: Board) -> None:
    board.net.busy_since = now() - 60


def _freeze_slot(board: Board) -> None:
    board.slot(1).beat = now() - 60


def _hang_slot(board: Board) -> None:
    board.slot(1).busy_since = now() - 600


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_freeze_net, "its net process has been frozen for 60 s"),
        (_hang_batch, "its net process has worked on one batch for 60 s"),
        (_freeze_slot, "slot 1 .* is frozen"),
        (_hang_slot, "slot 1 has worked on one job for 600 s"),
    ],
)
def test_what_is_wrong_is_named(configured: Settings, board: Board, spoil: Callable[[Board], None], fault: str) -> None:
    spoil(board)
    [only] = sentences(configured, board)
    assert re.fullmatch(fault, only)


def test_not_ready_and_leaving_fail_only_readiness(configured: Settings, board: Board) -> None:
    assert sentences(configured, board, ready=False) == ["it is not ready"]
    board.worker.leaving = True
    report = beaten(configured, board)
    assert list(faults(report, configured, ready=True)) == ["it is not ready"]
    assert list(faults(report, configured, ready=False)) == []


def test_a_heartbeat_that_stopped_and_a_process_that_is_gone(configured: Settings, board: Board) -> None:
    report = beaten(configured, board)
    assert any(
        "heartbeat is" in fault for fault in faults({**report, "written_at": time.time() - 60}, configured, ready=False)
    )
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert list(faults({**report, "pid": gone.pid}, configured, ready=False)) == [f"its process {gone.pid} is gone"]


def test_the_check_command_answers_fast_and_without_torch(configured: Settings, board: Board) -> None:
    report = beaten(configured, board)
    path = configured.heartbeat_dir / "cpu0@here.json"

    def check(*arguments: str) -> subprocess.CompletedProcess:
        environment = {**clean_environ(), "POSE_HEARTBEAT_DIR": str(configured.heartbeat_dir)}
        return subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "worker", "check", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )

    path.write_text(json.dumps({**report, "written_at": time.time()}))
    done = check("--ready")
    assert done.returncode == 0
    for heavy in ("torch", "cv2", "celery", "redis", "numpy", "numba", "tqdm", "pynvml"):
        assert f" {heavy}\n" not in done.stderr
    path.write_text(json.dumps({**report, "written_at": time.time(), "leaving": True}))
    assert check("--ready").returncode == 1
    assert check().returncode == 0
    assert check("--name", "cpu0").returncode == 0
    absent = check("--name", "gpu5")
    assert absent.returncode == 1
    assert "No worker gpu5 has a heartbeat" in absent.stderr


def test_a_worker_that_leaves_takes_its_heartbeat_away(configured: Settings, board: Board) -> None:
    heart = Heart(configured, "cpu0@here", Device(), board, 2)
    heart.beat()
    heart.stop()
    assert read_heartbeats(configured.heartbeat_dir) == []


def test_what_is_no_heartbeat_is_passed_over(configured: Settings, board: Board) -> None:
    beaten(configured, board)
    known = len(read_heartbeats(configured.heartbeat_dir))
    for number, data in enumerate((b"", b"no JSON", b"\xff", b"[]", b"{}", b'{"worker": 1}')):
        (configured.heartbeat_dir / f"{number}.json").write_bytes(data)
    assert len(read_heartbeats(configured.heartbeat_dir)) == known == 1


def test_no_worker_at_all_is_said() -> None:
    assert table([]) == "No worker has a heartbeat in this Redis."
