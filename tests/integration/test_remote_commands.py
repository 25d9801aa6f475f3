"""A worker obeys the remote commands on its list, and no others; operators pause workers and have them go on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import psutil
import pytest
import redis
from celery.worker.control import Panel

from tests.support import ROOT, clean_environ, wait_until
from worker.children import stop_child
from worker.client import PoseClient

pytestmark = pytest.mark.queue

#: What workers obey of Celery's own commands.
OBEYED = {"revoke", "ping", "stats", "active", "reserved", "scheduled", "revoked", "registered", "query_task"}
OBEYED |= {"active_queues", "report", "conf", "clock", "heartbeat", "enable_events", "disable_events"}
OBEYED |= {"dump_conf", "dump_schedule", "dump_reserved", "dump_active", "dump_revoked", "dump_tasks"}  # older names
ARGUMENTS = {
    "add_consumer": {"queue": "celery"},
    "autoscale": {"max": 1, "min": 0},
    "cancel_consumer": {"queue": "pose"},
    "election": {"id": "1", "topic": "task", "action": {}},
    "hello": {"from_node": "x"},
    "rate_limit": {"task_name": "pose.estimate", "rate_limit": "1/h"},
    "revoke_by_stamped_headers": {"headers": {"a": "b"}},
    "terminate": {"signal": "KILL", "task_id": "1"},
    "time_limit": {"task_name": "pose.estimate", "hard": 1},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "worker.log"


@pytest.fixture(scope="module")
def worker(broker: str, log: Path, samples: Path, start_worker: Callable[..., subprocess.Popen]) -> Iterator[Any]:
    variables = {"POSE_BROKER_URL": broker, "POSE_ENGINE": "null", "POSE_IMAGE_ROOTS": samples}
    child = start_worker("cpu0", "--logfile", str(log), **variables)
    with PoseClient(broker) as client:
        assert client.submit(samples / "bus.jpg", overlay=False).result(90).people == []
    yield child
    assert stop_child(child, grace_s=20) == 0


@pytest.fixture
def client(broker: str, worker: subprocess.Popen) -> Iterator[PoseClient]:
    with PoseClient(broker) as client:
        yield client


def test_every_other_command_is_refused(client: PoseClient, log: Path, samples: Path) -> None:
    known = set(Panel.data)
    assert {"shutdown", "pool_grow", "cancel_consumer", *ARGUMENTS} <= known
    for name in sorted({*known - OBEYED, "no_such_command"}):
        said_before = len(log.read_text())
        [answer] = client.app.control.broadcast(
            name, arguments=ARGUMENTS.get(name, {}), reply=True, limit=1, timeout=10
        )
        assert "does not obey" in next(iter(answer.values()))["error"]
        said = [line for line in log.read_text()[said_before:].splitlines() if "pose.estimate[" not in line]
        assert len(said) == 1
        assert f"{name!r} was refused" in said[0]
    assert client.submit(samples / "bus.jpg", overlay=False).result(30).people == []


def test_what_inspects_is_obeyed(client: PoseClient) -> None:
    asked = client.app.control.inspect(timeout=10, limit=1)
    for name in ("ping", "stats", "active", "registered", "active_queues", "conf", "report"):
        answer = getattr(asked, name)()
        assert answer is not None, name
        assert "does not obey" not in str(answer), name


def _operator(broker: str, *words: str) -> subprocess.CompletedProcess:
    environment = {**clean_environ(), "POSE_BROKER_URL": broker}
    command = [sys.executable, "-m", "worker", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("everyone", [True, False])
def test_a_worker_is_paused_and_goes_on(
    client: PoseClient,
    worker: subprocess.Popen,
    broker: str,
    samples: Path,
    redis_client: redis.Redis,
    everyone: bool,
) -> None:
    name = _operator(broker, "status").stdout.splitlines()[1].split()[0]
    chosen = "all" if everyone else name
    paused = _operator(broker, "pause", chosen)
    assert (paused.returncode, paused.stdout) == (0, f"{name}: paused\n"), paused.stderr
    wait_until(lambda: " paused " in _operator(broker, "status").stdout)
    job = client.submit(samples / "bus.jpg", overlay=False)
    with pytest.raises(TimeoutError):
        job.result(2)
    assert redis_client.llen("pose") == 1
    # The connection is lost meanwhile: it stays paused.
    for connection in psutil.Process(worker.pid).net_connections():
        if connection.status == psutil.CONN_ESTABLISHED:
            redis_client.client_kill_filter(addr=f"127.0.0.1:{connection.laddr.port}")
    time.sleep(4)
    assert redis_client.llen("pose") == 1
    assert _operator(broker, "resume", chosen).stdout == f"{name}: resumed\n"
    assert job.result(30).people == []


def test_a_worker_that_is_not_there_is_named(client: PoseClient, broker: str) -> None:
    ended = _operator(broker, "pause", "gpu7@nowhere")
    assert ended.returncode == 2
    assert "gpu7@nowhere" in ended.stderr


def test_revoking_ends_no_slot(client: PoseClient, samples: Path, log: Path) -> None:
    job = client.submit(samples / "bus.jpg", overlay=False, job_id="revoked-by-hand")
    arguments: Any = {"task_id": job.id, "terminate": True, "signal": "KILL"}
    client.app.control.broadcast("revoke", arguments=arguments, reply=True, limit=1, timeout=10)
    assert client.submit(samples / "bus.jpg", overlay=False).result(30).attempt == 1
    assert "slot was lost" not in log.read_text()
