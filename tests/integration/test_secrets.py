"""A worker with a secret in every place, which loses every server and meets wrong passwords: none is told anywhere."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple
from urllib.parse import urlsplit

import pytest
import redis

from tests.support import ROOT, clean_environ, wait_until
from tests.support.brokers import free_port
from worker.children import stop_child
from worker.cli.local import embedded_redis
from worker.client import PoseClient
from worker.errors import DeadLetter
from worker.observe.heartbeat import read_heartbeats
from worker.settings import read_settings

pytestmark = pytest.mark.queue

QUEUE = "secretive"
#: What must not be seen, by where it is set; embedded servers bring passwords of their own.
SECRETS = {"results": "r3sults-passw0rd", "webhook": "w3bhook-s1gning-secret", "s3": "s3-acc3ss-secret"}


class Deployment(NamedTuple):
    """A worker, its servers, its variables, and all that it has written."""

    worker: subprocess.Popen
    broker: redis.Redis
    overlays: redis.Redis
    servers: ExitStack
    variables: Dict[str, str]
    log: Path
    secrets: List[str]


@pytest.fixture(scope="module")
def deployment(start_worker: Callable, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "bus.jpg").write_bytes((samples / "bus.jpg").read_bytes())
    log = folder / "log"
    with ExitStack() as servers:
        broker, overlays = servers.enter_context(embedded_redis()), servers.enter_context(embedded_redis())
        place = urlsplit(broker)
        admin, store = (servers.enter_context(redis.Redis.from_url(url)) for url in (broker, overlays))
        admin.execute_command("ACL", "SETUSER", "results", "on", f">{SECRETS['results']}", "~*", "&*", "+@all")
        variables = {
            "POSE_BROKER_URL": broker,
            "POSE_RESULT_BACKEND": f"redis://results:{SECRETS['results']}@{place.hostname}:{place.port}/0",
            "POSE_OVERLAY_STORE": overlays,
            "POSE_WEBHOOK_SECRET": SECRETS["webhook"],
            "AWS_SECRET_ACCESS_KEY": SECRETS["s3"],
            "POSE_QUEUE": QUEUE,
            "POSE_IMAGE_ROOTS": str(folder),
            "POSE_METRICS_PORT": str(free_port()),
            "POSE_METRICS_BIND": "127.0.0.1",
            "POSE_HEARTBEAT_DIR": str(folder / "beats"),
            **{"POSE_MAX_ATTEMPTS": "2", "POSE_RETRY_BASE_S": "0.2", "POSE_RETRY_MAX_S": "0.3"},
        }
        worker = start_worker("cpu0", "--logfile", str(log), POSE_ENGINE="null", **variables)
        passwords = [str(urlsplit(url).password) for url in (broker, overlays)]
        yield Deployment(worker, admin, store, servers, variables, log, [*passwords, *SECRETS.values()])


def test_no_secret_is_told_whatever_becomes_of_the_servers(deployment: Deployment) -> None:
    image = Path(deployment.variables["POSE_IMAGE_ROOTS"]) / "bus.jpg"
    seen: List[str] = []
    with PoseClient(deployment.variables["POSE_BROKER_URL"], queue=QUEUE) as client:
        job = client.submit(image)
        seen += [repr(job.result(90)), _stored(deployment, job.id)]

        with _another_password(deployment.overlays):
            job = client.submit(image)
            with pytest.raises(DeadLetter, match="overlay store") as caught:
                job.result(60)
        seen += [repr(caught.value), _stored(deployment, job.id)]
        seen += [_said(deployment, "dead", *words) for words in (["list"], ["show", "--json", job.id])]
        assert "StorageUnavailable" in seen[-1]

        with _another_password(deployment.broker, "results"):
            job = client.submit(image, overlay=False)
            seen.append(_said(deployment, "status"))
            assert "invalid username-password" in seen[-1]
            wait_until(lambda: "invalid username-password" in deployment.log.read_text())
        assert job.result(60).people == []

        with _another_password(deployment.broker):
            wait_until(lambda: "Cannot connect" in deployment.log.read_text())
            seen.append(_said(deployment, "status"))
        assert client.submit(image, overlay=False).result(60).people == []

    deployment.servers.close()  # what is there now is refused
    wait_until(lambda: "refused" in deployment.log.read_text())
    seen += [_said(deployment, "status"), _said(deployment, "check", "--config")]
    port = deployment.variables["POSE_METRICS_PORT"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        seen.append(answer.read().decode())
    seen.append(repr(read_heartbeats(image.parent / "beats")))
    assert "jobs_done" in seen[-1]
    seen.append(repr(read_settings({name: text for name, text in deployment.variables.items() if "POSE" in name})))
    assert stop_child(deployment.worker, grace_s=20) == 0
    assert deployment.worker.stderr is not None
    seen += [deployment.log.read_text(), deployment.worker.stderr.read().decode()]

    assert all(seen[:-1])
    for secret in deployment.secrets:
        assert [text[text.index(secret) - 300 :][:600] for text in seen if secret in text] == []


def _stored(deployment: Deployment, job_id: str) -> str:
    """All that Redis holds of a job: its result, its record and its history."""
    record = deployment.broker.hgetall(f"pose:job:{job_id}")
    assert record
    return f"{deployment.broker.get(f'celery-task-meta-{job_id}')!r} {record}"


def _said(deployment: Deployment, *words: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "worker", *words]
    environment = {**clean_environ(), **deployment.variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@contextmanager
def _another_password(server: redis.Redis, user: str = "default") -> Iterator[None]:
    """`user` has another password for a while, and all of its connections are cut."""
    rules = server.acl_getuser(user)
    [digest] = rules["passwords"]
    server.execute_command("ACL", "SETUSER", user, "resetpass", ">an0ther")
    server.execute_command("CLIENT", "KILL", "USER", user, "SKIPME", "yes")
    yield
    server.execute_command("ACL", "SETUSER", user, "resetpass", f"#{digest}")
