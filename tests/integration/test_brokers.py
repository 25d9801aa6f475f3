"""The same jobs on other servers, by URL alone: RabbitMQ, Redis with TLS and a password or behind Sentinel, Valkey."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

import kombu
import psutil
import pytest

from tests.support import brokers, wait_until
from worker.children import stop_child
from worker.client import PoseClient
from worker.contract import TASK
from worker.errors import BrokerUnavailable, ImageNotAllowed, ImageNotFound, InvalidRequest
from worker.servers import DELIVERY_LIMIT, connect
from worker.servers import dead_queue as declared_dead_queue
from worker.servers import queue as declared_queue

pytestmark = pytest.mark.queue

Servers = Dict[str, str]
Start = Callable[..., subprocess.Popen]


@contextmanager
def _rabbitmq(folder: Path, own_redis: str) -> Iterator[Servers]:
    with brokers.rabbitmq(folder) as url:
        yield {"POSE_BROKER_URL": url, "POSE_RESULT_BACKEND": own_redis}


@contextmanager
def _tls(folder: Path, own_redis: str) -> Iterator[Servers]:
    brokers.certificates(folder)
    files = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt"]
    arguments = [str(folder / word) if "." in word else word for word in files]
    with brokers.redis_server(folder, *arguments, "--tls-auth-clients", "no", tls=True) as port:
        yield {"POSE_BROKER_URL": f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={folder}/ca.crt"}


@contextmanager
def _sentinel(folder: Path, own_redis: str) -> Iterator[Servers]:
    with (
        brokers.redis_server(folder, "--requirepass", "secret") as master,
        brokers.sentinel(folder, master, "secret") as port,
    ):
        yield {"POSE_BROKER_URL": f"sentinel://:secret@127.0.0.1:{port}/0?master=pose"}


@contextmanager
def _valkey(folder: Path, own_redis: str) -> Iterator[Servers]:
    with brokers.redis_server(folder, program=brokers.valkey()) as port:
        yield {"POSE_BROKER_URL": f"redis://127.0.0.1:{port}/0"}


@pytest.fixture(
    scope="module", params=[_rabbitmq, _tls, _sentinel, _valkey], ids=["rabbitmq", "tls", "sentinel", "valkey"]
)
def servers(request: pytest.FixtureRequest, broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("server")
    with request.param(folder, broker) as variables:
        yield variables


@pytest.fixture(scope="module")
def images(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tests' own, for some images come late."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "bus.jpg").write_bytes((samples / "bus.jpg").read_bytes())
    return folder


@pytest.fixture(scope="module")
def worker(servers: Servers, start_worker: Start, images: Path) -> Iterator[subprocess.Popen]:
    """A worker that is ready: while it starts, what is waited for would be given up."""
    chosen = {"POSE_FILE_GRACE_S": 3, "POSE_RETRY_BASE_S": 0.5, "POSE_MAX_ATTEMPTS": 3, "POSE_IMAGE_ROOTS": images}
    child = start_worker(**servers, **chosen, POSE_ENGINE="null")
    with PoseClient(servers["POSE_BROKER_URL"], result_backend=servers.get("POSE_RESULT_BACKEND")) as client:
        client.submit(images / "bus.jpg", overlay=False).result(90)
    yield child
    stop_child(child, grace_s=10)  # while its broker is there


@pytest.fixture
def client(servers: Servers) -> Iterator[PoseClient]:
    with PoseClient(servers["POSE_BROKER_URL"], result_backend=servers.get("POSE_RESULT_BACKEND")) as client:
        yield client


def test_jobs_are_done_and_their_pictures_fetched(
    worker: subprocess.Popen, client: PoseClient, images: Path, servers: Servers
) -> None:
    jobs = [client.submit(images / "bus.jpg") for _ in range(8)]
    for job in jobs:
        assert job.result(60).image.width == 810
        assert (job.overlay() or b"").startswith(b"\xff\xd8")
    assert "secret" not in repr(client)


def test_what_may_pass_is_tried_again(worker: subprocess.Popen, client: PoseClient, images: Path) -> None:
    late = images / "late.jpg"
    job = client.submit(late, overlay=False)
    try:
        wait_until(lambda: job.state == "RETRY")
        late.write_bytes((images / "bus.jpg").read_bytes())
        assert job.result(60).people == []
    finally:
        late.unlink(missing_ok=True)
    with pytest.raises(ImageNotFound):
        client.submit(images / "never.jpg").result(60)


@pytest.mark.long
@pytest.mark.parametrize("servers", [_rabbitmq], ids=["rabbitmq"], indirect=True)
def test_a_killed_workers_message_comes_back_at_once(
    servers: Servers, client: PoseClient, start_worker: Start, images: Path
) -> None:
    """RabbitMQ sees the connection close; on Redis the time limit must pass, which test_fleet.py waits for."""
    slow = {**servers, "POSE_ENGINE": "null", "NULL_NET_MS": "4000", "POSE_QUEUE": "slow", "POSE_IMAGE_ROOTS": images}
    first = start_worker("cpu7", **slow)
    with PoseClient(
        servers["POSE_BROKER_URL"], result_backend=servers["POSE_RESULT_BACKEND"], queue="slow"
    ) as slow_client:
        job = slow_client.submit(images / "bus.jpg", overlay=False)
        wait_until(lambda: job.state == "STARTED", 60)
        os.kill(first.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(first.pid)], 30)
        second = start_worker("cpu8", **{**slow, "NULL_NET_MS": "0"})
        assert job.result(60).worker.startswith("cpu8")
    stop_child(second, grace_s=10)


@pytest.mark.parametrize("servers", [_rabbitmq], ids=["rabbitmq"], indirect=True)
def test_a_message_that_nobody_survives_leaves_the_queue(servers: Servers) -> None:
    url = servers["POSE_BROKER_URL"]
    with kombu.Connection(url) as connection:
        channel = connection.default_channel
        poison = declared_queue("poisoned", url)(channel)
        poison.declare()
        dead = kombu.Queue("poisoned.dead", queue_arguments={"x-queue-type": "quorum"})(channel)
        dead.declare()
        connection.Producer().publish({}, exchange=poison.exchange, routing_key="poisoned")
        for _ in range(DELIVERY_LIMIT + 1):
            wait_until(poison.get).requeue()
        assert poison.get() is None
        assert wait_until(dead.get).headers["x-death"][0]["reason"] == "delivery_limit"


@pytest.mark.parametrize("servers", [_tls], ids=["tls"], indirect=True)
def test_a_certificate_that_nobody_signed_is_not_trusted(servers: Servers) -> None:
    url = servers["POSE_BROKER_URL"].partition("/0?")[0] + "/1"  # kombu shares connections that differ in TLS alone
    with PoseClient(url) as stranger, pytest.raises(BrokerUnavailable, match="certificate verify failed"):
        stranger.submit("/a.jpg")
    assert connect(servers["POSE_BROKER_URL"], 5).ping()


def _hostile(publish: Callable[..., None]) -> Iterator[Optional[str]]:
    """Publish what is no message of ours; gives the ids under which it must end, None where there is none."""
    body = json.dumps([[], {"image": "/nowhere.jpg"}, {}]).encode()
    for number, (text, kind, headers) in enumerate(
        [
            (b"not JSON", "application/json", {}),
            (b"", "application/json", {}),
            (pickle.dumps([[], {}, {}]), "application/x-python-serialize", {}),
            (zlib.compress(bytes(100_000_000), 9), "application/json", {"compression": "application/x-gzip"}),
            (zlib.compress(body), "application/data", {}),
            (body, "application/json", {"task": "celery.map"}),
            (body, "application/json", {"retries": "many", "timelimit": "for ever"}),
            (b"[" * 100_000, "application/json", {}),
            (b"[[], {}, {}]" + b" " * 400_000, "application/json", {}),
        ]
    ):
        publish(text, kind, {"id": f"hostile-{number}", "task": TASK, **headers})
        yield f"hostile-{number}"
        publish(text, kind, {})
        yield None


@pytest.mark.parametrize("servers", [_rabbitmq], ids=["rabbitmq"], indirect=True)
def test_a_job_of_protocol_1_is_done(
    worker: subprocess.Popen, servers: Servers, client: PoseClient, images: Path
) -> None:
    """As gocelery publishes it: the body alone; one of them is refused, and ends all the same."""
    body = {"task": TASK, "args": [str(images / "bus.jpg"), {"overlay": False}], "kwargs": None, "retries": 0}
    with kombu.Connection(servers["POSE_BROKER_URL"]) as connection:
        for fields in ({**body, "id": "gopher"}, {**body, "id": "gopher-2", "retries": "many"}):
            text, kind = json.dumps(fields), {"content_type": "application/json", "content_encoding": "utf-8"}
            connection.Producer().publish(text, exchange="pose", routing_key="pose", serializer=None, **kind)
    assert client.job("gopher").result(60).image.width == 810
    with pytest.raises(InvalidRequest, match="'retries'"):
        client.job("gopher-2").result(60)


@pytest.mark.long
@pytest.mark.parametrize("servers", [_rabbitmq], ids=["rabbitmq"], indirect=True)
def test_hostile_messages_end_typed_or_with_the_dead(
    worker: subprocess.Popen, servers: Servers, client: PoseClient, images: Path
) -> None:
    client.submit(images / "bus.jpg", overlay=False).result(60)  # so the worker has declared everything
    with kombu.Connection(servers["POSE_BROKER_URL"]) as connection:
        producer = connection.Producer()

        def publish(text: bytes, kind: str, headers: Dict[str, Any]) -> None:
            told = {"content_type": kind, "content_encoding": "utf-8", "headers": headers}
            producer.publish(text, exchange="pose", routing_key="pose", serializer=None, **told)

        ids = list(_hostile(publish))
        for job_id in filter(None, ids):
            with pytest.raises((InvalidRequest, ImageNotAllowed)):
                client.job(job_id).result(30)
        dead = declared_dead_queue("pose")(connection.default_channel)
        wait_until(lambda: dead.queue_declare(passive=True)[1] >= len(ids) // 2)
    assert client.submit(images / "bus.jpg", overlay=False).result(30).attempt == 1
    assert worker.poll() is None
