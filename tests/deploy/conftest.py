"""One deployment for all tests of this folder: Redis with the shipped files, a worker as the CPU image starts it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from tests.support import ROOT, clean_environ, wait_until
from tests.support.box import boxed, image, instructions, numba_cache
from tests.support.brokers import free_port, need
from tests.support.deployment import DEPLOY, Deployment
from tests.support.distributions import walls
from worker.children import start_child, stop_child


@pytest.fixture(scope="package")
def deployment(thin_net: Path, samples: Path) -> Iterator[Deployment]:
    folder = Path(tempfile.mkdtemp(prefix="pose-deploy-"))
    server = None
    try:
        folder.chmod(0o755)
        port, metrics = free_port(), free_port()
        secrets = [str(DEPLOY / "redis/make-secrets"), str(folder / "secrets"), f"127.0.0.1:{port}"]
        subprocess.run(secrets, check=True)
        (folder / "data").mkdir()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder / "data")]
        options += ["--aclfile", str(folder / "secrets/users.acl")]
        command = [need("redis-server", "redis-server"), str(DEPLOY / "redis/redis.conf"), *options]
        with (folder / "redis.log").open("wb") as log:
            server = start_child(command, stdout=log, stderr=log)
        wait_until(lambda: "Ready to accept connections" in (folder / "redis.log").read_text())
        numba_cache(folder / "cache")
        walls(folder / "site", _installed(DEPLOY / "Dockerfile.cpu"))
        yield from _with_worker(folder, port, metrics, samples)
    finally:
        if server is not None:
            stop_child(server, grace_s=10)
        shutil.rmtree(folder)


def _installed(dockerfile: Path) -> List[str]:
    """The lines of the requirements files that an image is built with."""
    told = instructions(dockerfile)
    (command,) = [rest for name, rest in told if name == "RUN" and "pip install" in rest]
    files = re.findall(r"-r (\S+)", command)
    assert "requirements-cpu.lock" in files
    return [line for file in files for line in (ROOT / file).read_text().splitlines()]


def _with_worker(folder: Path, port: int, metrics: int, samples: Path) -> Iterator[Deployment]:
    made = image(DEPLOY / "Dockerfile.cpu")
    secret = "/run/secrets/pose/worker-url" if os.getuid() == 0 else str(folder / "secrets/worker-url")
    told = {
        **made.environment,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": "/run/site",
        "POSE_BROKER_URL_FILE": secret,
        "POSE_IMAGE_ROOTS": str(samples),
        "POSE_ENGINE": "null",
        "POSE_WEBHOOK_SECRET": "a secret of the tests",
        "POSE_WARM_SIZES": "368x280",
        "POSE_METRICS_PORT": str(metrics),
        "POSE_METRICS_BIND": "127.0.0.1",
    }
    if boxed([], folder) == []:  # no box can be closed here: the folders are the test's own
        told["PYTHONPATH"] = str(folder / "site")
        told.update(POSE_HEARTBEAT_DIR=str(folder / "run"), NUMBA_CACHE_DIR=str(folder / "cache"))
        told["POSE_BROKER_URL_FILE"] = str(folder / "secrets/worker-url")
    command = [sys.executable if word == "python" else word for word in (*made.entry_point, *made.command)]
    with (folder / "log").open("wb") as log:
        worker = start_child(boxed(command, folder), env=told, cwd=ROOT, stdout=log, stderr=log)
    running = Deployment(folder, port, metrics, worker, told, made)
    try:
        ready = [*made.health_check, "--ready"]
        wait_until(lambda: worker.poll() is not None or running.run(ready).returncode == 0, 90)
        assert worker.poll() is None, running.log()
        yield running
    finally:
        stop_child(worker, grace_s=20)


@pytest.fixture
def shell(deployment: Deployment, tmp_path: Path) -> Dict[str, str]:
    """An operator's environment: this checkout's programs, and the deployment's settings."""
    told = {**clean_environ(), **{k: v for k, v in deployment.environment.items() if k.startswith("POSE_")}}
    told["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    told["POSE_BROKER_URL"] = deployment.url("worker")
    del told["POSE_BROKER_URL_FILE"]
    return told
