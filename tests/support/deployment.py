"""What the tests of deploy/ run: Redis and a worker, as the shipped files start them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple

import redis

from tests.support import ROOT
from tests.support.box import Image, inside
from worker.client import PoseClient

DEPLOY = ROOT / "deploy"


class Deployment(NamedTuple):
    """What is running."""

    folder: Path
    redis_port: int
    metrics_port: int
    worker: subprocess.Popen
    environment: Dict[str, str]
    image: Image

    def url(self, user: str) -> str:
        return (self.folder / "secrets" / f"{user}-url").read_text()

    def redis(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(user), decode_responses=True)

    def client(self) -> PoseClient:
        return PoseClient(self.url("client"))

    def run(self, command: List[str], **variables: str) -> subprocess.CompletedProcess:
        """Run `command` in the worker's box, with its environment and `variables`."""
        environment = {**self.environment, "POSE_METRICS_PORT": "0", **variables}
        told = inside(self.worker.pid, self.words(command))
        return subprocess.run(told, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)

    def words(self, command: List[str]) -> List[str]:
        """`command` with this environment's interpreter."""
        return [sys.executable if word == "python" else word for word in command]

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")
