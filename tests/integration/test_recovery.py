"""What becomes of a job when one thing fails at a moment that is chosen; tests/chaos has all of them at any moment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.chaos.proxy import Trap
from tests.chaos.stage import Disk, Server, Workers
from tests.support import wait_until
from tests.support.monitor import monitored
from worker.client import PoseClient
from worker.contract import TASK
from worker.errors import DeadLetter, ImageNotFound
from worker.jobs.ledger import Ledger

pytestmark = [pytest.mark.queue, pytest.mark.long]

#: Seconds for one job, far beyond what any takes.
PATIENCE = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recovery")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def disk(folder: Path) -> Iterator[Disk]:
    disk = Disk(folder)
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def workers(folder: Path, server: Server, disk: Disk, thin_net: Path) -> Iterator[Workers]:
    """One worker of two slots whose leases last four seconds, and whose overlays are files."""
    workers = Workers(
        *(1, folder, server),
        {
            "POSE_IMAGE_ROOTS": folder,
            "POSE_OVERLAY_STORE": disk.folder.as_uri(),
            "POSE_MAX_ATTEMPTS": 3,
            "POSE_SOFT_TIME_LIMIT_S": 8,
            "POSE_HARD_TIME_LIMIT_S": 9,
            "POSE_FILE_GRACE_S": 16,
            "POSE_RETRY_MAX_S": 10,
            "CHAOS_LEASE_S": 4,
            "CHAOS_FROZEN_S": 3,
        },
    )
    workers.start()
    workers.await_ready()
    yield workers
    assert workers.stop() == []


@pytest.fixture
def client(server: Server, workers: Workers, disk: Disk) -> Iterator[PoseClient]:
    with PoseClient(server.url, overlay_store=disk.folder.as_uri()) as client:
        yield client


@pytest.fixture
def ledger(server: Server) -> Ledger:
    return Ledger(server.client, "pose")


@pytest.fixture
def image(folder: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = folder / f"{name}.png"
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(path)
        return path

    return make


def _submit(client: PoseClient, path: Path, **told: Any) -> Any:
    return client.submit(path, target_height=64, **told)


def test_a_client_that_dies_between_record_and_message_has_submitted(
    client: PoseClient, ledger: Ledger, image: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    path = image("fine")
    with monkeypatch.context() as broken:
        broken.setattr(client.app, "send_task", die)
        with pytest.raises(KeyboardInterrupt):
            _submit(client, path, job_id="broken-off")
    wait_until(lambda: ledger.state("broken-off") == "done", PATIENCE)
    job = _submit(client, path, job_id="broken-off")  # which sends nothing: it is the same job
    assert job.result(PATIENCE).attempt == 1


def test_a_message_that_was_popped_and_never_noted_is_sent_again(
    client: PoseClient, server: Server, workers: Workers, ledger: Ledger, image: Callable[[str], Path]
) -> None:
    # So that the message that is popped next is this job's, and not one that another test has left.
    wait_until(lambda: not server.client.exists("pose", "unacked", "pose:running", "pose:later"))
    trap = Trap([workers.proxies["cpu0"]], lambda proxy: False)
    job = _submit(client, image("fine"))
    assert trap.wait(PATIENCE)
    assert job.result(PATIENCE).attempt == 1
    assert ledger.show(job.id)["resent"] == "1"


def test_a_job_longer_than_its_lease_is_not_taken_for_lost(
    client: PoseClient, ledger: Ledger, image: Callable[[str], Path]
) -> None:
    job = _submit(client, image("naps-5s"))
    assert job.result(PATIENCE).attempt == 1
    assert "resent" not in ledger.show(job.id)


def test_a_finished_result_outlasts_an_outage_and_the_job_is_not_done_again(
    client: PoseClient, server: Server, ledger: Ledger, image: Callable[[str], Path]
) -> None:
    job = _submit(client, image("naps-2s"))
    wait_until(lambda: ledger.state(job.id) == "running")
    server.kill()
    time.sleep(10)  # beyond the hard time limit
    server.start()
    assert job.result(PATIENCE).attempt == 1
    assert ledger.show(job.id)["tries"] == "1"


def test_the_outcome_is_stored_before_the_message_is_acknowledged(
    client: PoseClient, server: Server, ledger: Ledger, image: Callable[[str], Path]
) -> None:
    with monitored(server.url) as seen:
        job = _submit(client, image("fine"))
        job.result(PATIENCE)
        wait_until(lambda: not server.client.exists("unacked"))
    outcome = next(i for i, one in enumerate(seen) if one.name == "HSET" and one.words[2:4] == ["state", "done"])
    result = next(i for i, one in enumerate(seen) if one.name == "SET" and '\\"SUCCESS\\"' in one.words[2])
    tags = {one.words[2] for one in seen if one.words[:2] == ["HSET", "unacked"] and job.id in one.words[3]}
    acknowledged = [i for i, one in enumerate(seen) if one.words[:2] == ["HDEL", "unacked"] and one.words[2] in tags]
    # A slow machine may have it sent twice; then one message is acknowledged because the other is in work.
    assert max(outcome, result) < acknowledged[-1]


def test_a_message_that_comes_twice_makes_one_attempt(
    client: PoseClient, ledger: Ledger, server: Server, image: Callable[[str], Path]
) -> None:
    message = {"image": str(image("naps-1s")), "options": {"target_height": 64}}
    for _ in range(3):
        client.app.send_task(TASK, kwargs=message, queue="pose", task_id="thrice")
    wait_until(lambda: ledger.state("thrice") == "done")
    client.app.send_task(TASK, kwargs=message, queue="pose", task_id="thrice")  # and once more when it has ended
    client.app.send_task(TASK, kwargs={**message, "image": "/other"}, queue="pose", task_id="thrice")
    wait_until(lambda: not server.client.exists("unacked", "pose"))
    assert ledger.show("thrice")["tries"] == "1"
    assert client.app.AsyncResult("thrice").result["image"]["path"] == message["image"]


def test_a_job_that_eats_all_memory_ends_as_a_dead_letter_with_its_history_and_the_worker_goes_on(
    client: PoseClient, workers: Workers, ledger: Ledger, image: Callable[[str], Path]
) -> None:
    [worker] = workers.pids()
    job = _submit(client, image("eats-memory"))
    with pytest.raises(DeadLetter, match="3 times in vain, last: DeviceOutOfMemory"):
        job.result(PATIENCE)
    record = ledger.show(job.id)
    for number in (1, 2, 3):
        assert '"worker": "cpu0@' in record[f"attempt:{number}"]
        assert "DeviceOutOfMemory" in record[f"attempt:{number}:end"]
    times = [float(record[f"attempt:{number}"].split()[0]) for number in (1, 2, 3)]
    assert times[2] - times[1] > 0.2  # the pause has grown
    assert workers.pids() == [worker]
    assert _submit(client, image("fine")).result(PATIENCE)


def test_a_job_beyond_its_time_limit_is_broken_off_and_tried_again(
    client: PoseClient, ledger: Ledger, image: Callable[[str], Path]
) -> None:
    job = _submit(client, image("naps-20s"))
    wait_until(lambda: "attempt:1:end" in ledger.show(job.id), PATIENCE)
    job.cancel()
    assert "JobTimedOut: The job for " in ledger.show(job.id)["attempt:1:end"]


def test_a_job_that_hears_no_time_limit_loses_its_slot_and_is_done_by_another(
    client: PoseClient, ledger: Ledger, image: Callable[[str], Path]
) -> None:
    job = _submit(client, image("hangs-once"))
    assert job.result(PATIENCE).attempt == 2
    assert "its slot was killed after 9 s, the hard time limit" in ledger.show(job.id)["attempt:1:end"]


def test_frozen_slots_are_killed_and_others_do_their_jobs(
    client: PoseClient, workers: Workers, image: Callable[[str], Path]
) -> None:
    """Those that stand still before they begin, where no time limit runs yet."""
    [worker] = workers.pids()

    def known() -> List[int]:  # one that is frozen while it starts is another matter, of Celery's
        return sorted(slot["pid"] for slot in workers.reports()[0]["slots"])

    wait_until(lambda: known() == sorted(slot.pid for slot in workers.slots(worker)))
    frozen = workers.slots(worker)
    assert len(frozen) >= 2
    for slot in frozen:
        slot.suspend()
    assert _submit(client, image("fine")).result(PATIENCE).attempt == 1
    assert psutil.wait_procs(frozen, PATIENCE)[1] == []
    assert workers.pids() == [worker]


def test_a_file_that_does_not_come_is_looked_for_less_and_less_often(
    client: PoseClient, ledger: Ledger, folder: Path
) -> None:
    job = _submit(client, folder / "never-comes.png")
    with pytest.raises(ImageNotFound):
        job.result(PATIENCE)
    # Each pause is at least half of what has passed; with equal ones it would be tried each second.
    assert 4 <= int(ledger.show(job.id)["tries"]) < 12


def test_a_full_disk_is_waited_for_and_leaves_nothing_half_written(
    client: PoseClient, disk: Disk, image: Callable[[str], Path]
) -> None:
    if not disk.mounted:
        pytest.skip("no file system can be mounted here")
    disk.fill()
    try:
        job = _submit(client, image("fine"))
        wait_until(lambda: job.state == "RETRY")
        left = [path for path in disk.folder.rglob("*") if job.id in path.name]
    finally:
        disk.clear()
    assert left == []
    assert job.result(PATIENCE).attempt >= 2
    assert job.overlay()
