"""Nothing grows over weeks: after many jobs, many awaits that were given up, and many commands that were killed midway,
connections, keys and memory are where they were. Flower listens to every event meanwhile.

The numbers are those that fit into `make test-all`; `make soak` has 10,000 jobs, as many awaits, and 200 commands.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, NamedTuple

import cv2
import numpy as np
import psutil
import pytest
import redis

from tests.support import ROOT, clean_environ, wait_until
from tests.support.brokers import free_port
from worker.children import start_child, stop_child
from worker.client import PoseClient
from worker.client.aio import AsyncPoseClient

SOAK = bool(os.environ.get("POSE_TESTS_SOAK"))  # read here, for tests see no POSE_* variable
JOBS, AWAITS, COMMANDS = (10_000, 10_000, 200) if SOAK else (600, 2_000, 12)

pytestmark = [pytest.mark.queue, pytest.mark.long, pytest.mark.timeout(3600 if SOAK else 300)]

#: Threads of the service that submits.
THREADS = 8
#: Seconds for which results and records are kept, all of which is waited for.
KEPT_S = 5
#: Megabytes by which a process, or Redis, may have grown: allocators keep what they once had.
SLACK_MB = 16


class Size(NamedTuple):
    """How much there is of everything that could leak."""

    connections: int
    keys: int
    threads: int
    files: int
    memory: Dict[str, float]

    def fits(self, before: Size) -> bool:
        """Whether all but memory is where it was; the pools of connections may have grown by two for each thread."""
        pools = self.connections - before.connections, self.files - before.files
        return max(pools) <= 2 * THREADS and self.keys <= before.keys and self.threads <= before.threads


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a.png"
    cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    return path


@pytest.fixture(scope="module")
def worker(broker: str, image: Path, start_worker: Callable[..., subprocess.Popen]) -> subprocess.Popen:
    variables = {"POSE_ENGINE": "null", "POSE_IMAGE_ROOTS": image.parent, "POSE_RESULT_EXPIRES_S": KEPT_S}
    # Its standard error is a pipe that nobody reads.
    return start_worker("cpu0", "--logfile", str(image.parent / "log"), POSE_BROKER_URL=broker, **variables)


@pytest.fixture(scope="module")
def client(broker: str, worker: subprocess.Popen, image: Path) -> Iterator[PoseClient]:
    with PoseClient(broker) as client:
        client.submit(image, overlay=False).result(90)
        yield client


@pytest.fixture(scope="module", autouse=True)
def flower(broker: str, client: PoseClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen]:
    """A Flower that has asked for events, for as long as the tests take."""
    options = ["--address=127.0.0.1", f"--port={free_port()}", "--enable_events=True"]
    child = start_child(
        [sys.executable, "-m", "celery", "--broker", broker, "flower", *options],
        cwd=tmp_path_factory.mktemp("flower"),
        env=clean_environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with redis.Redis.from_url(broker) as server:
        wait_until(lambda: server.pubsub_numpat() > 0)
    yield child
    assert child.poll() is None
    stop_child(child, grace_s=5)


@pytest.fixture
def size(redis_client: redis.Redis, worker: subprocess.Popen, flower: subprocess.Popen) -> Callable[[], Size]:
    parent, own = psutil.Process(worker.pid), psutil.Process()

    def size() -> Size:
        gc.collect()  # a thread's connections go with what Celery keeps for that thread
        family = [parent, *parent.children(recursive=True)]
        found = {f"process {one.pid}": one.memory_info().rss / 2**20 for one in family}
        found["this process"] = own.memory_info().rss / 2**20
        found["redis"] = redis_client.info("memory")["used_memory"] / 2**20
        connections = redis_client.info("clients")["connected_clients"]
        threads, files = threading.active_count() + parent.num_threads(), own.num_fds() + parent.num_fds()
        return Size(connections, redis_client.dbsize(), threads, files, found)

    return size


def _settled(size: Callable[[], Size], before: Size) -> None:
    """Wait until all is where it was; what is not is shown."""
    try:
        wait_until(lambda: size().fits(before), KEPT_S + 30)
    except AssertionError:
        assert size()[:4] == before[:4]
        raise
    after = size()
    assert set(after.memory) == set(before.memory)  # no process has died
    grown = {name: after.memory[name] - before.memory[name] for name in after.memory}
    assert {name: grew for name, grew in grown.items() if grew > SLACK_MB} == {}


def test_jobs_of_a_service_of_many_threads(client: PoseClient, image: Path, size: Callable[[], Size]) -> None:
    def one(number: int) -> None:
        job = client.submit(image, overlay=number % 2 == 0)
        assert job.result(60).people == []
        if number % 2 == 0:
            assert job.overlay()

    def run(count: int) -> None:
        """With new threads for every hundred jobs or more: what a thread has must go with it."""
        for first in range(0, count, max(count // 10, 100)):
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(one, range(first, first + max(count // 10, 100))))

    run(200)  # so that everything has been used once
    time.sleep(KEPT_S + 1)
    before = size()
    run(JOBS)
    _settled(size, before)


def test_awaits_that_were_given_up(broker: str, size: Callable[[], Size]) -> None:
    """Of jobs that nobody does; they are cancelled at the end."""

    async def give_up(client: AsyncPoseClient, count: int) -> None:
        jobs = [await client.submit("/a.jpg") for _ in range(20)]
        for first in range(0, count, 500):
            waiting = [asyncio.ensure_future(jobs[number % 20].result()) for number in range(first, first + 500)]
            await asyncio.sleep(0.02)
            for one in waiting:
                one.cancel()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(one) for one in ended} == {asyncio.CancelledError}
        assert client._waiting == {}
        for job in jobs:
            assert await job.cancel()

    def run(count: int) -> None:
        async def service() -> None:
            async with AsyncPoseClient(broker, queue="nobody-listens", key_prefix="leaks") as client:
                await give_up(client, count)

        asyncio.run(service())

    def clean() -> None:
        """A client keeps that a job was cancelled for a day, and the messages are nobody's."""
        with redis.Redis.from_url(broker) as server:
            left = [*server.scan_iter("leaks:*"), b"nobody-listens"]
            server.delete(*left)

    run(500)
    clean()
    before = size()
    run(AWAITS)
    clean()
    _settled(size, before)


def test_commands_that_were_killed_midway(broker: str, client: PoseClient, size: Callable[[], Size]) -> None:
    environment: Dict[str, str] = {**clean_environ(), "POSE_BROKER_URL": broker}
    command = [sys.executable, "-m", "worker", "status"]

    def run() -> Any:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)

    started = time.monotonic()
    with run() as whole:
        assert whole.wait(60) == 0
    seconds = time.monotonic() - started
    before = size()
    for _ in range(COMMANDS):
        with run() as child:
            time.sleep(random.uniform(0.3, 1.0) * seconds)
            child.kill()
    _settled(size, before)
