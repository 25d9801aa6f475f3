"""An S3 of the tests' own, on the loopback."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import Iterator

import pytest

from tests.support import wait_until
from tests.support.brokers import absent, free_port
from worker.children import start_child, stop_child


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of a moto server; where it is not installed, the test is skipped."""
    for package in ("moto", "flask_cors", "s3fs"):
        if importlib.util.find_spec(package) is None:
            absent(f"there is no {package}; install requirements-dev.txt")
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rpartition(":")[2]]
    server = start_child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: server.poll() is None and _answers(url), 60)
        yield url
    finally:
        stop_child(server, grace_s=2)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/moto-api/", timeout=1) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def use(url: str, patch: pytest.MonkeyPatch) -> None:
    """Have this process, and those that it starts, use the S3 at `url`."""
    from worker.storage import s3

    for name, value in environment(url).items():
        patch.setenv(name, value)
    s3.forget()


def environment(url: str) -> dict:
    """What is told of it by environment variables."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
