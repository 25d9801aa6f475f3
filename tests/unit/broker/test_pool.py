"""That what the worker knows of Celery's pool is still so: each test fails if the library below changes."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Callable

import billiard.pool
import pytest

from tests.support import ROOT, clean_environ

pytestmark = pytest.mark.queue


#: A worker whose slots die before they can say why.
DYING = """
import os
from worker.process import slot
slot.Slot.__init__ = lambda *_, **__: os._exit(3)
from celery.__main__ import main
main()
"""


def test_a_slot_that_dies_at_its_start_ends_the_worker(broker: str, thin_net: Path) -> None:
    arguments = ["--app", "worker", "worker", "--pool", "prefork", "--hostname", "cpu0@here", "--concurrency", "2"]
    environment = {**clean_environ(), "POSE_BROKER_URL": broker, "POSE_HEARTBEAT_DIR": "none", "POSE_ENGINE": "null"}
    done = subprocess.run(
        [sys.executable, "-c", DYING, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 1
    assert "A slot died with status 3 at its start; see the log above." in done.stderr


def test_nothing_is_left_in_the_folder_for_temporary_files(
    broker: str, tmp_path: Path, start_worker: Callable[..., subprocess.Popen]
) -> None:
    worker = start_worker("cpu6", POSE_BROKER_URL=broker, POSE_ENGINE="null", POSE_QUEUE="nobodys", TMPDIR=tmp_path)
    assert worker.stderr is not None
    while b"ready:" not in worker.stderr.readline():
        assert worker.poll() is None
    worker.kill()
    worker.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_slot_that_ends_reads_how_long_to_wait_where_it_is_set() -> None:
    source = textwrap.dedent(inspect.getsource(billiard.pool.Worker._ensure_messages_consumed))
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    assert "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT" in names
    assert isinstance(billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT, int)
