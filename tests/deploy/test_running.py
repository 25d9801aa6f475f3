"""A worker as the image's entry point starts it, on a Redis with the shipped configuration and users."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, Set

import pytest
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import ROOT, wait_until
from tests.support.box import walls
from tests.support.brokers import free_port, need
from tests.support.deployment import DEPLOY, Deployment
from worker.children import start_child, stop_child
from worker.client import PoseClient
from worker.errors import PoseError

pytestmark = pytest.mark.queue


def families(deployment: Deployment) -> Dict[str, Set[str]]:
    """What a live scrape has: the labels of each sample's name."""
    url = f"http://127.0.0.1:{deployment.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    found: Dict[str, Set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_a_job_runs_through_it_with_no_right_missing(deployment: Deployment, samples: Any) -> None:
    with deployment.redis("admin") as admin:
        admin.acl_log_reset()
    with deployment.client() as client:
        job = client.submit(samples / "bus.jpg", priority=3)
        assert job.result(30).people == []
        assert job.overlay().startswith(b"\xff\xd8")
        with pytest.raises(PoseError, match="missing"):
            client.submit(samples / "missing.jpg").result(30)
        client.discard(job.id, job.result(5))
        told = client.submit(samples / "bus.jpg", overlay=False, webhook="http://127.0.0.1:9/")
        assert told.result(30).people == []
        with deployment.redis("admin") as admin:  # it was dealt with, although nothing private is called
            wait_until(lambda: admin.hget(f"pose:call:{told.id}", "done"))
    status = deployment.run(["python", "-m", "worker", "status"])
    assert "ready" in status.stdout
    with deployment.redis("admin") as admin:
        refused = [(one["username"], one["reason"], one["object"]) for one in admin.acl_log()]
        # What redis-py tells of itself where Redis knows the command; nothing depends on it.
        assert [one for one in refused if one[2] != "client|setinfo"] == []


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("worker", "FLUSHALL"),
        ("worker", "KEYS *"),
        ("worker", "CONFIG GET *"),
        ("worker", "SHUTDOWN"),
        ("worker", "ACL LIST"),
        ("worker", "GET another-service"),
        ("worker", "SUBSCRIBE another-service"),
        ("worker", "REPLICAOF NO ONE"),
        ("client", "BRPOP pose 1"),
        ("client", "LRANGE pose 0 -1"),
        ("client", "HGETALL unacked"),
        ("client", "SCAN 0"),
        ("client", "DEL unacked"),
        ("sentinel", "GET celery-task-meta-1"),
        ("replica", "GET pose"),
    ],
)
def test_no_user_may_do_more_than_its_work(deployment: Deployment, user: str, command: str) -> None:
    with deployment.redis(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())
    with deployment.redis("admin") as admin:
        admin.acl_log_reset()


def test_nobody_comes_in_without_a_password(deployment: Deployment) -> None:
    for password in (None, "", "worker"):
        client = redis.Redis(port=deployment.redis_port, password=password, retry=Retry(NoBackoff(), 0))
        with client, pytest.raises(redis.exceptions.AuthenticationError):
            client.ping()


def test_what_redis_is_told_is_in_force(deployment: Deployment) -> None:
    with deployment.redis("admin") as admin:
        told = admin.config_get("append*") | admin.config_get("maxmemory*")
        assert (told["appendonly"], told["maxmemory-policy"]) == ("yes", "noeviction")
        assert any((deployment.folder / "data").glob("appendonlydir/*.aof"))


def test_it_does_with_what_the_image_installs(deployment: Deployment) -> None:
    done = deployment.run([sys.executable, "-c", "import openvino, opentelemetry.sdk, s3fs"])
    assert done.stderr.endswith("No module named 's3fs'\n")
    assert deployment.run([sys.executable, "-c", "import torch"]).stderr.endswith("No module named 'torch'\n")


def test_a_cpu_needs_no_torch_for_nets(deployment: Deployment) -> None:
    script = """
import numpy as np
from pathlib import Path
from worker.device.pin import own_engine
from worker.engine import load
from worker.settings import read_settings
net = load(Path("models/mobilenet_thin"), engine=own_engine(read_settings({}), "cpu"))
print(type(net).__name__, net(np.zeros((1, 64, 48, 3), np.uint8))[0].shape)
own_engine(read_settings({"POSE_ENGINE": "torch"}), "cpu")
"""
    done = deployment.run([sys.executable, "-c", script])
    assert done.stdout == "OpenVinoNet (1, 19, 8, 6)\n"
    assert "POSE_ENGINE=torch needs torch to run nets on cpu" in done.stderr.splitlines()[-1]


def test_the_health_check_passes_inside_and_nothing_else_can_be_written(deployment: Deployment) -> None:
    assert deployment.run(deployment.image.health_check).returncode == 0
    if not walls():
        pytest.skip("only root can close a box around the worker")
    script = f"import os; print(os.getuid()); open({str(ROOT / 'x')!r}, 'w')"
    done = deployment.run([sys.executable, "-c", script])
    assert done.stdout == "65534\n"
    assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr
    written = deployment.run(["find", "/run/pose", "-type", "f"]).stdout.split()
    assert [path.rpartition("/")[2][:5] for path in written] == ["cpu0@"]


def test_no_secret_is_in_the_log_the_status_or_the_process_list(deployment: Deployment) -> None:
    password = (deployment.folder / "secrets/worker-password").read_text()
    assert password not in deployment.log()
    assert password not in deployment.run(["python", "-m", "worker", "status"]).stdout
    assert password not in deployment.run(["ps", "axww"]).stdout
    assert all(json.loads(line)["worker"] for line in deployment.log().splitlines() if line.startswith("{"))


def _expressions() -> Iterator[str]:
    for group in yaml.safe_load((DEPLOY / "observe/alerts.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    board = json.loads((DEPLOY / "observe/dashboard.json").read_text())
    yield from (target["expr"] for panel in board["panels"] for target in panel["targets"])


def test_dashboard_and_alerts_ask_only_for_what_is_exported(deployment: Deployment) -> None:
    promql = pytest.importorskip("promql_parser")
    exported = wait_until(lambda: (found := families(deployment)) and "pose_queue_depth" in found and found)
    # A CPU has none of these; the exporter's own test sees them.
    for name in ("pose_device_memory_used_bytes", "pose_device_memory_total_bytes"):
        exported.setdefault(name, {"worker"})
    asked: Set[str] = set()
    for expression in _expressions():
        promql.parse(expression)
        for name, labels in re.findall(r"\b(pose_\w+)(?:\{([^}]*)\})?", expression):
            assert name in exported, expression
            assert set(re.findall(r"(\w+)\s*=", labels)) <= exported[name], expression
            asked.add(name)
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            names = re.findall(r"\b(pose_\w+)", expression)
            assert set(grouped.replace(" ", "").split(",")) <= set.union(*(exported[name] for name in names))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported} <= shown  # nothing is told in vain


@pytest.fixture(scope="module")
def sentinel(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Sentinel with the shipped configuration, as make-secrets has filled it in."""
    port, tmp_path = free_port(), tmp_path_factory.mktemp("sentinel")
    text = (deployment.folder / "secrets/redis-sentinel.conf").read_text()
    text = text.replace("redis-0 6379 2", f"127.0.0.1 {deployment.redis_port} 1").replace("bind * -::*", "")
    text = text.replace("port 26379", f"port {port}").replace("dir /tmp", f"dir {tmp_path}")
    (tmp_path / "sentinel.conf").write_text(text)
    child = start_child(
        [need("redis-server", "redis-server"), str(tmp_path / "sentinel.conf"), "--sentinel"], stdout=subprocess.DEVNULL
    )
    password = (deployment.folder / "secrets/sentinel-password").read_text()
    try:
        with redis.Redis(port=port, username="sentinel", password=password, decode_responses=True) as client:
            wait_until(lambda: _state(client) == {"master"})
        yield port
    finally:
        stop_child(child, grace_s=5)


def test_a_sender_finds_redis_through_the_shipped_sentinel(
    deployment: Deployment, sentinel: int, samples: Path
) -> None:
    discovery, password = (
        (deployment.folder / f"secrets/{name}-password").read_text() for name in ("discovery", "client")
    )
    url = f"sentinel://client:{password}@127.0.0.1:{sentinel}/0?master=pose&sentinel_password={discovery}"
    with PoseClient(url) as client:
        assert client.submit(samples / "bus.jpg", overlay=False).result(30).people == []


@pytest.mark.parametrize("who", ["nobody", "who may ask"])
@pytest.mark.parametrize(
    "command",
    [
        *("SENTINEL SET pose auth-pass x", "SENTINEL REMOVE pose", "SENTINEL MONITOR evil 127.0.0.1 1 1"),
        *("SENTINEL FAILOVER pose", "SENTINEL CONFIG SET resolve-hostnames no", "SENTINEL RESET *", "SHUTDOWN"),
        *("ACL LIST", "INFO", "PUBLISH __sentinel__:hello x", "SENTINEL CONFIG GET *"),
    ],
)
def test_who_may_ask_sentinel_changes_nothing(deployment: Deployment, sentinel: int, who: str, command: str) -> None:
    known = (deployment.folder / "secrets/discovery-password").read_text()
    password = known if who == "who may ask" else None
    with redis.Redis(port=sentinel, password=password, retry=Retry(NoBackoff(), 0)) as client:
        denied = (redis.exceptions.NoPermissionError, redis.exceptions.AuthenticationError)
        with pytest.raises(denied):
            client.execute_command(*command.split())


def _state(client: redis.Redis) -> Any:
    try:
        told = client.sentinel_master("pose")
    except redis.RedisError:
        return None
    flags = set(told["flags"].split(",")) if isinstance(told["flags"], str) else set(told["flags"])
    return flags if int(told.get("info-refresh", 0)) and int(told.get("last-ok-ping-reply", 99999)) < 5000 else None
