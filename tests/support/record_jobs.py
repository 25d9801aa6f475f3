"""Record what a version leaves in Redis for a job of every state, for test_upgrade.py.

In a checkout of the version that is to be recorded: ``PYTHONPATH=. python <this file> <this folder>/recorded``, and the
names of states if not all are asked for. It uses nothing of the tests beside it, for the checkout has others.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import redis
import s3fs

from worker.client import PoseClient

#: Where the recorded jobs' image lies, whatever machine they are done on.
IMAGE, BROKEN = "s3://recorded/image.jpg", "s3://recorded/broken.jpg"
#: What one deployment's workers and clients keep for themselves, which is of no job.
_NOT_A_JOBS = ("_kombu.", "pose:reconciler", "pose:worker:", "unacked_mutex")


def main(folder: Path, *states: str) -> None:
    """Write a file for each state."""
    with _server("redis-server", "--save", "", "--port") as port, _moto() as s3:
        url = f"redis://127.0.0.1:{port}/0"
        with PoseClient(url) as client, redis.Redis.from_url(url) as keys:
            for state in states or RECORDED:
                keys.flushall()
                job_id = f"recorded-{state}"
                RECORDED[state](client, url, s3, job_id)
                dump = {"job_id": job_id, "keys": dict(_dumped(keys))}
                (folder / f"{state}.json").write_text(json.dumps(dump, indent=1, sort_keys=True) + "\n")


def _done(client: PoseClient, url: str, s3: Dict[str, str], job_id: str) -> None:
    with _worker(url, s3):
        assert client.submit(IMAGE, job_id=job_id, target_height=184).result(90).people


def _failed(client: PoseClient, url: str, s3: Dict[str, str], job_id: str) -> None:
    client.submit(BROKEN, job_id=job_id)
    with _worker(url, s3, POSE_ENGINE="null"):
        _until(lambda: client.state(job_id) == "FAILURE")


def _dead(client: PoseClient, url: str, s3: Dict[str, str], job_id: str) -> None:
    client.submit(IMAGE, job_id=job_id)
    with _worker(url, s3, **_TOO_SLOW, POSE_MAX_ATTEMPTS="1"):
        _until(lambda: client.state(job_id) == "FAILURE")


def _retried(client: PoseClient, url: str, s3: Dict[str, str], job_id: str) -> None:
    client.submit(IMAGE, job_id=job_id)
    with _worker(url, s3, **_TOO_SLOW, POSE_RETRY_BASE_S="60"):
        _until(lambda: client.state(job_id) == "RETRY")


def _revoked(client: PoseClient, url: str, s3: Dict[str, str], job_id: str) -> None:
    client.submit(IMAGE, job_id=job_id)
    assert client.cancel(job_id)


def _waiting(client: PoseClient, url: str, s3: Dict[str, str], job_id: str) -> None:
    client.submit(IMAGE, job_id=job_id, target_height=184, priority=3)


def _lost(client: PoseClient, url: str, s3: Dict[str, str], job_id: str) -> None:
    client.submit(IMAGE, job_id=job_id)
    with redis.Redis.from_url(url) as keys:  # as one that has taken the message and died before it noted that
        assert keys.rpop("pose")


def _running(client: PoseClient, url: str, s3: Dict[str, str], job_id: str) -> None:
    client.submit(IMAGE, job_id=job_id)
    with _worker(url, s3, POSE_ENGINE="null", NULL_NET_MS="60000") as child:
        _until(lambda: client.state(job_id) == "STARTED")
        child.kill()


#: How a job comes into each state.
RECORDED: Dict[str, Callable[[PoseClient, str, Dict[str, str], str], None]] = {
    "done": _done,
    "failed": _failed,
    "dead": _dead,
    "retried": _retried,
    "revoked": _revoked,
    "waiting": _waiting,
    "lost": _lost,
    "running": _running,
}
_TOO_SLOW = {"POSE_ENGINE": "null", "NULL_NET_MS": "6000", "POSE_SOFT_TIME_LIMIT_S": "1"}


def _dumped(keys: redis.Redis) -> Iterator[Any]:
    """Key → its type, its value, and the seconds that it is kept for."""
    readers: Dict[str, Callable[[bytes], Any]] = {
        "string": keys.get,
        "list": lambda key: keys.lrange(key, 0, -1),
        "hash": keys.hgetall,
        "zset": lambda key: keys.zrange(key, 0, -1, withscores=True),
    }
    for key in sorted(keys.keys()):
        if not key.decode().startswith(_NOT_A_JOBS):
            kind = keys.type(key).decode()
            yield key.decode(), {"type": kind, "ttl": keys.ttl(key), "value": _plain(readers[kind](key))}


def _plain(value: Any) -> Any:
    """As JSON has it; what is no text becomes ``{"base64": …}``."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except ValueError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def _worker(url: str, s3: Dict[str, str], **variables: str) -> Iterator[subprocess.Popen]:
    with tempfile.TemporaryDirectory() as heartbeats:
        chosen = {"POSE_BROKER_URL": url, "POSE_IMAGE_ROOTS": "s3://recorded", "POSE_HEARTBEAT_DIR": heartbeats}
        command = [sys.executable, "-m", "celery", "--app", "worker", "worker", "--pool", "prefork"]
        command += ["--hostname", "cpu0@recorded", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        child = subprocess.Popen(command, env={**os.environ, **s3, **chosen, **variables})
        try:
            yield child
        finally:
            child.terminate()
            child.wait(60)


@contextlib.contextmanager
def _moto() -> Iterator[Dict[str, str]]:
    """The environment of an S3 that holds the image."""
    with _server(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p") as port:
        s3 = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        s3.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
        os.environ.update(s3)
        files = s3fs.S3FileSystem()
        files.mkdir("recorded")
        files.pipe("recorded/image.jpg", Path(__file__).with_name("recorded").joinpath("image.jpg").read_bytes())
        files.pipe("recorded/broken.jpg", b"no image")
        yield s3


@contextlib.contextmanager
def _server(*command: str) -> Iterator[int]:
    """The port of a server, which is the last word of its command line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    child = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: _answers(port))
        yield port
    finally:
        child.terminate()
        child.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
