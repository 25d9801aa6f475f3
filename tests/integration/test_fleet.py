"""Real fleets under load: drained, killed, poisoned. No job is lost, and none is done twice for a drain."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator, List

import psutil
import pytest
import redis

from tests.support import ROOT, clean_environ, wait_until
from worker.children import stop_child
from worker.client import PoseClient
from worker.observe.heartbeat import read_heartbeats

pytestmark = pytest.mark.queue

#: Short limits, so that a killed worker's messages come back within seconds.
SHORT = {
    "POSE_SOFT_TIME_LIMIT_S": 7,
    "POSE_HARD_TIME_LIMIT_S": 8,
    "POSE_RETRY_MAX_S": 1,
    "POSE_RETRY_BASE_S": 0.2,
    "POSE_GRACE_S": 2,
}


class Fleet:
    """A running ``python -m worker fleet`` whose net does nothing, in a given time."""

    def __init__(self, broker: str, folder: Path, queue: str, **variables: Any) -> None:
        self.log, self.heartbeats = folder / "fleet.log", folder / "heartbeats"
        chosen = {
            **SHORT,
            "POSE_BROKER_URL": broker,
            "POSE_QUEUE": queue,
            "POSE_ENGINE": "null",
            "POSE_IMAGE_ROOTS": folder,
            "POSE_HEARTBEAT_DIR": self.heartbeats,
            **variables,
        }
        self.environment = {**clean_environ(), **{name: str(value) for name, value in chosen.items()}}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "fleet"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers = int(variables.get("POSE_CPU_WORKERS", 1))

    def await_ready(self) -> None:
        """Wait until every worker consumes."""
        wait_until(lambda: sum(one["ready"] for one in self.reports()) == self.workers, 60)

    def reports(self) -> List[Any]:
        return read_heartbeats(self.heartbeats)

    def family(self) -> List[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """A queue of the test's own."""
    return re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def client(broker: str, queue: str) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=queue) as client:
        yield client


@pytest.fixture
def image(tmp_path: Path, samples: Path) -> Path:
    path = tmp_path / "bus.jpg"
    path.write_bytes((samples / "bus.jpg").read_bytes())
    return path


@pytest.fixture
def start(broker: str, tmp_path: Path, queue: str) -> Iterator[Callable[..., Fleet]]:
    fleets: List[Fleet] = []

    def begin(**variables: Any) -> Fleet:
        fleets.append(Fleet(broker, tmp_path, queue, **variables))
        return fleets[-1]

    yield begin
    for fleet in fleets:
        stop_child(fleet.process, grace_s=30)


def _succeeded(log: str) -> Counter:
    return Counter(re.findall(r"pose\.estimate\[([0-9a-f-]+)\] succeeded", log))


def _kill_group(fleet: Fleet) -> None:
    """As systemd does: the signal goes to every process of every worker."""
    for process in fleet.family():
        process.send_signal(signal.SIGTERM)
    fleet.process.send_signal(signal.SIGTERM)


def _kill_one(fleet: Fleet) -> None:
    fleet.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("kill", [pytest.param(_kill_one, marks=pytest.mark.long), _kill_group])
def test_a_drain_under_load_loses_nothing_and_does_nothing_twice(
    start: Callable[..., Fleet], client: PoseClient, image: Path, kill: Callable[[Fleet], None]
) -> None:
    fleet = start(POSE_CPU_WORKERS=2, NULL_NET_MS="150")
    fleet.await_ready()
    jobs = [client.submit(image, overlay=False) for _ in range(80)]
    wait_until(lambda: sum(_succeeded(fleet.text()).values()) > 10)
    family = fleet.family()
    kill(fleet)
    assert fleet.process.wait(60) == 0, fleet.text()[-3000:]
    assert psutil.wait_procs(family, 30)[1] == []
    done = len(_succeeded(fleet.text()))
    assert 10 < done < 80
    start(NULL_NET_MS="0").await_ready()
    for job in jobs:
        assert job.result(60).attempt == 1
    wait_until(lambda: len(_succeeded(fleet.text())) == 80)  # the log follows the result
    assert set(_succeeded(fleet.text()).values()) == {1}


@pytest.mark.long
def test_what_is_not_done_within_the_grace_goes_back_to_the_queue(
    start: Callable[..., Fleet], client: PoseClient, image: Path, queue: str, redis_client: redis.Redis
) -> None:
    limits = {"POSE_SOFT_TIME_LIMIT_S": 200, "POSE_HARD_TIME_LIMIT_S": 210, "POSE_NET_TIMEOUT_S": 220}
    fleet = start(NULL_NET_MS="200000", POSE_GRACE_S=1, **limits)
    fleet.await_ready()
    job = client.submit(image, overlay=False)
    wait_until(lambda: job.state == "STARTED")
    family = fleet.family()
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.process.wait(60) == 0, fleet.text()[-3000:]  # long before the net would be done
    assert psutil.wait_procs(family, 30)[1] == []
    wait_until(lambda: redis_client.llen(queue) == 1)
    start().await_ready()
    assert job.result(60).attempt == 1  # it was not the job's fault


@pytest.mark.long
def test_a_fleet_has_a_worker_for_each_gpu_and_each_gpu_one_worker(
    start: Callable[..., Fleet], client: PoseClient, image: Path, tmp_path: Path
) -> None:
    """With a driver that tells of GPUs, and a net that needs none."""
    uuids = [f"fleet-{os.getpid()}-{letter}" for letter in "ab"]
    gpus = {"PYTHONPATH": ROOT / "tests" / "support" / "fakes", "FAKE_GPUS": ",".join(uuids), "POSE_SLOTS": 1}
    fleet = start(POSE_CPU_WORKERS=2, **gpus)
    fleet.await_ready()
    assert [one["worker"].partition("@")[0] for one in fleet.reports()] == ["gpu0", "gpu1"]
    seen, usual = set(), psutil.Process(fleet.process.pid).nice()
    assert {process.nice() for process in fleet.family()} == {usual, min(19, usual + 5)}
    for process in fleet.family():
        if "worker.device.server" in process.cmdline():
            assert process.nice() == usual  # and slots give way to it
            assert process.environ()["POSE_DEVICE"] == "cuda:0"
            seen.add(process.environ()["CUDA_VISIBLE_DEVICES"])
    assert seen == {f"GPU-{uuid}" for uuid in uuids}
    assert client.submit(image, overlay=False).result(60).device in ("gpu0 Fake H100", "gpu1 Fake H100")
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-n", "gpu1@%h"]
    second = subprocess.run(command, cwd=ROOT, env=fleet.environment, capture_output=True, text=True)
    assert second.returncode == 1
    assert re.search(r"GPU 1: Fake H100 .* has a worker on this host already; .* POSE_SHARE_DEVICE=1", second.stderr)


def test_a_slot_that_dies_is_replaced_and_its_job_redone(
    start: Callable[..., Fleet], client: PoseClient, image: Path
) -> None:
    fleet = start(NULL_NET_MS="1500")
    fleet.await_ready()
    job = client.submit(image, overlay=False)
    [busy] = wait_until(lambda: [slot for one in fleet.reports() for slot in one["slots"] if slot["busy_s"]])
    os.kill(busy["pid"], signal.SIGKILL)
    result = job.result(60)
    assert result.attempt == 2
    wait_until(lambda: all(psutil.pid_exists(slot["pid"]) for slot in fleet.reports()[0]["slots"]))
    assert fleet.reports()[0]["pid"] in [process.pid for process in fleet.family()]  # the worker itself lived on


@pytest.mark.long
def test_a_job_that_kills_every_slot_is_not_tried_for_ever(
    start: Callable[..., Fleet], client: PoseClient, image: Path
) -> None:
    fleet = start(NULL_NET_MS="1500", POSE_MAX_ATTEMPTS=2)
    fleet.await_ready()
    job = client.submit(image, overlay=False)
    killed = set()
    deadline = time.monotonic() + 90
    while job.state != "FAILURE" and time.monotonic() < deadline:
        for report in fleet.reports():
            for slot in report["slots"]:
                if slot["busy_s"] and slot["pid"] not in killed:
                    os.kill(slot["pid"], signal.SIGKILL)
                    killed.add(slot["pid"])
        time.sleep(0.05)
    assert job.state == "FAILURE"
    assert len(killed) == 2


def test_a_net_process_that_dies_costs_one_attempt(
    start: Callable[..., Fleet], client: PoseClient, image: Path
) -> None:
    fleet = start(NULL_NET_MS="1500")
    fleet.await_ready()
    job = client.submit(image, overlay=False)
    wait_until(lambda: fleet.reports()[0]["net"]["batch_in_flight_s"])
    [net] = [process for process in fleet.family() if "worker.device.server" in process.cmdline()]
    net.kill()
    assert job.result(60).attempt >= 2
    wait_until(lambda: fleet.reports()[0]["net"]["restarts"] == 1 and fleet.reports()[0]["net"]["ready"])


def test_a_killed_worker_leaves_no_process_and_its_job_is_done_by_the_next(
    start: Callable[..., Fleet], client: PoseClient, image: Path
) -> None:
    fleet = start(NULL_NET_MS="1000")
    fleet.await_ready()
    job = client.submit(image, overlay=False)
    wait_until(lambda: job.state == "STARTED")
    worker = psutil.Process(fleet.reports()[0]["pid"])
    orphans = worker.children(recursive=True)
    assert len(orphans) >= 3  # the net process and two slots
    for orphan in orphans:  # none that stands still, either, which would not see by itself that its parent is gone
        orphan.suspend()
    worker.kill()
    assert psutil.wait_procs(orphans, 30)[1] == []
    assert job.result(60).people == []
    assert "Worker cpu0 was ended by SIGKILL; it is started again in 0.5 s" in fleet.text()


def test_a_message_that_is_not_json_is_named_in_the_log_and_survived(
    start: Callable[..., Fleet], client: PoseClient, image: Path, queue: str, redis_client: redis.Redis
) -> None:
    fleet = start()
    fleet.await_ready()
    redis_client.lpush(queue, b"this is not JSON")
    assert client.submit(image, overlay=False).result(60).people == []
    assert "was refused: it is not JSON" in fleet.text()
    assert "is started again" not in fleet.text()
    assert "it is not JSON" in fleet.command("refused", "list").stdout


@pytest.mark.long
def test_check_and_status_tell_of_the_net_and_of_the_slots(start: Callable[..., Fleet]) -> None:
    fleet = start(POSE_NET_TIMEOUT_S=60)
    assert fleet.command("check", "--ready").returncode == 1
    fleet.await_ready()
    assert fleet.command("check", "--ready").returncode == 0
    lines = fleet.command("status").stdout.splitlines()
    assert len(lines) >= 2
    assert any(line.split()[1] == "ready" for line in lines[1:])
    [net] = [process for process in fleet.family() if "worker.device.server" in process.cmdline()]
    net.suspend()
    wait_until(lambda: fleet.command("check").returncode == 1)
    assert "its net process has been frozen" in fleet.command("check").stderr
    net.resume()
    wait_until(lambda: fleet.command("check").returncode == 0)


@pytest.mark.long
def test_revoked_and_expired_jobs_are_not_done(
    start: Callable[..., Fleet], client: PoseClient, image: Path, queue: str
) -> None:
    message = {"image": str(image), "options": {"overlay": False}}
    expired = client.app.send_task("pose.estimate", kwargs=message, queue=queue, expires=0.01)
    time.sleep(0.1)
    start(POSE_SLOTS=1, NULL_NET_MS="4000").await_ready()
    first, second = (client.submit(image, overlay=False) for _ in range(2))
    wait_until(lambda: first.state == "STARTED")
    assert expired.state == "REVOKED"
    client.app.control.revoke(second.id, reply=True, limit=1, timeout=60)  # as Celery users know it
    assert first.result(60).people == []
    wait_until(lambda: second.state == "REVOKED")


@pytest.mark.long
def test_a_worker_serves_several_queues_and_nets_and_holds_as_many_as_it_may(
    start: Callable[..., Fleet], client: PoseClient, image: Path, tmp_path: Path, thin_net: Path, queue: str
) -> None:
    for name in ("thin", "other"):
        copy = shutil.copytree(thin_net, tmp_path / "nets" / name)
        document = json.loads((copy / "model.json").read_text())
        (copy / "model.json").write_text(json.dumps({**document, "name": name}))
    nets = {"POSE_MODELS_DIR": tmp_path / "nets", "POSE_MODEL": "thin", "POSE_MODELS": "other", "POSE_MAX_NETS": 1}
    fleet = start(POSE_QUEUES=f"{queue},urgent-{queue}", **nets)
    broker = fleet.environment["POSE_BROKER_URL"]
    with PoseClient(broker, queue=f"urgent-{queue}") as urgent:
        for model in ("thin", "other", "thin"):
            for sender in (client, urgent):
                assert sender.submit(image, overlay=False, model=model).result(60).model.name == model
    assert re.findall(r"The net (\w+) leaves the device's memory", fleet.text()) == ["thin", "other"]


def test_urgent_jobs_overtake(start: Callable[..., Fleet], client: PoseClient, image: Path, queue: str) -> None:
    client.app.conf.broker_transport_options = {"priority_steps": list(range(10))}
    message = {"image": str(image), "options": {"overlay": False}}
    ids = [
        client.app.send_task("pose.estimate", kwargs=message, queue=queue, priority=priority).id
        for priority in (9, 5, 0)
    ]
    fleet = start(POSE_SLOTS=1)
    wait_until(lambda: len(_succeeded(fleet.text())) == 3, 60)
    assert re.findall(r"pose\.estimate\[([0-9a-f-]+)\] succeeded", fleet.text()) == ids[::-1]
