"""What all tests share: a clean environment, one seed, the sample photographs, an embedded Redis, real workers.

Servers and workers are a module's own: no module sees the keys, the counts or the heartbeats of another.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis

from tests.support import ROOT, clean_environ
from tests.support.documents import command, example
from worker.settings import settings

SAMPLES = ROOT / "samples"

# However busy the machine is; and what fails once fails again.
hypothesis.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
hypothesis.load_profile("steady")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No POSE_* variable of the developer's own reaches a test, nor settings that another test has read."""
    for variable in [name for name in os.environ if name.startswith("POSE_")]:
        monkeypatch.delenv(variable)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """What decides all that is drawn at random: that of the tests' order, which pytest prints and `SEED=` gives."""
    return int(pytestconfig.getoption("randomly_seed", 20))  # pytest-randomly is not everywhere


@pytest.fixture(autouse=True)
def _same_draws(seed: int, request: pytest.FixtureRequest) -> None:
    """A test draws the same numbers whatever ran before it."""
    own = zlib.crc32(f"{seed} {request.node.nodeid}".encode())
    random.seed(own)
    np.random.seed(own)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of sample photographs that ``make test`` brings."""
    if not (SAMPLES / "bus.jpg").exists():
        pytest.skip("no sample photographs; run: python -m models.samples samples")
    return SAMPLES


@pytest.fixture(scope="session")
def thin_net() -> Path:
    """The directory of the default net, which ``make test`` brings."""
    directory = ROOT / "models" / "mobilenet_thin"
    if not (directory / "model.json").exists():
        pytest.skip("no net; run: python -m models.fetch mobilenet_thin")
    return directory


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """The URL of a Redis of the module's own."""
    from worker.cli.local import embedded_redis

    with embedded_redis() as url:
        yield url


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The URL of an S3 of the tests' own."""
    from tests.support.objects import s3_server

    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def heartbeats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's workers leave their heartbeats."""
    return tmp_path_factory.mktemp("heartbeats")


@pytest.fixture(scope="module")
def start_worker(thin_net: Path, heartbeats: Path, broker: str) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a real worker process with the given POSE_* variables; all are stopped at the end.

    `broker` is asked for so that it outlives them.
    """
    from worker.children import start_child, stop_child
    from worker.process.fleet import worker_command

    children = []

    def start(name: str = "cpu0", *arguments: str, **variables: Any) -> subprocess.Popen:
        chosen = {"POSE_WARM_SIZES": "368x280", "POSE_HEARTBEAT_DIR": heartbeats, **variables}
        environment = {**clean_environ(), **{k: str(v) for k, v in chosen.items()}}
        child = start_child(
            [*worker_command(name), *arguments],
            env=environment,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        stop_child(child, grace_s=5)
        child.stderr.close()


@pytest.fixture(scope="session")
def client_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pip installs of this project for those who submit jobs."""
    folder = tmp_path_factory.mktemp("package")
    _, [pip, *words] = command(example("docs/clients.md", "sh", "pip install"))
    words += [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        f"--target={folder}",
    ]  # no network
    subprocess.run([sys.executable, "-m", pip, *words], check=True, cwd=ROOT, timeout=100)
    return folder


@pytest.fixture
def redis_client(broker: str) -> Iterator[redis.Redis]:
    """A plain connection to the module's Redis."""
    with redis.Redis.from_url(broker) as client:
        yield client
