"""Redis with the shipped configuration for TLS, and the certificates that make-secrets makes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest
import redis

from tests.support import wait_until
from tests.support.brokers import free_port, need
from tests.support.deployment import DEPLOY
from worker.children import start_child, stop_child
from worker.client import PoseClient

pytestmark = pytest.mark.queue


def test_a_job_runs_over_tls_and_nothing_without(
    tmp_path: Path, samples: Path, start_worker: Callable[..., subprocess.Popen]
) -> None:
    need("openssl", "openssl")
    port, secrets = free_port(), tmp_path / "s"
    make = [str(DEPLOY / "redis/make-secrets"), str(secrets), f"127.0.0.1:{port}", "tls"]
    subprocess.run(make, check=True, env={**os.environ, "CA": str(secrets / "ca.crt")})
    (tmp_path / "redis.conf").write_text((DEPLOY / "redis/redis.conf").read_text())
    text = (DEPLOY / "redis/redis-tls.conf").read_text().replace("/run/secrets", str(secrets))
    text = text.replace("/etc/redis", str(tmp_path)).replace("tls-port 6379", f"tls-port {port}")
    (tmp_path / "redis-tls.conf").write_text(text)
    options = ["--bind", "127.0.0.1", "--dir", str(tmp_path), "--aclfile", str(secrets / "users.acl")]
    command = [need("redis-server", "redis-server"), str(tmp_path / "redis-tls.conf"), *options]
    child = start_child(command, stdout=subprocess.DEVNULL)
    urls = {name: (secrets / f"{name}-url").read_text() for name in ("worker", "client")}
    try:
        wait_until(lambda: _answers(urls["worker"]))
        assert not _answers(urls["worker"].replace("rediss://", "redis://").partition("?")[0])
        assert not _answers(urls["worker"].partition("?")[0])  # the authority is not known
        worker = start_worker(
            "cpu0", POSE_BROKER_URL=urls["worker"], POSE_ENGINE="null", POSE_IMAGE_ROOTS=samples, POSE_METRICS_PORT=0
        )
        with redis.Redis.from_url(urls["worker"]) as client:
            wait_until(lambda: client.exists("pose:reconciler"), 60)
        with PoseClient(urls["client"]) as sender:
            assert sender.submit(samples / "bus.jpg").result(30).people == []
        assert stop_child(worker, grace_s=20) == 0
    finally:
        stop_child(child, grace_s=5)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
