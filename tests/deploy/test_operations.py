"""Every command of docs/operations.md, read out of it and executed against a running deployment, in its order."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Dict, Iterator

import pytest
import redis
import yaml

from tests.support import ROOT, wait_until
from tests.support.brokers import free_port, need
from tests.support.deployment import DEPLOY, Deployment
from tests.support.documents import examples
from worker.children import start_child, stop_child
from worker.jobs.ledger import Ledger, Message, ResultKey

pytestmark = [pytest.mark.queue, pytest.mark.long]

GUIDE = (ROOT / "docs/operations.md").read_text()
BLOCKS = examples("docs/operations.md", "sh")

#: Stands in for what cannot run here: it refuses names that are not in the shipped files.
STAND_IN = """#!/bin/sh
for word in "$@"; do
    case $word in
        --from-file=*) test -e "${word##*=}" || exit 1 ;;
        -* | */gpu-host-3 | pose | set | image | rollout | status | restart | stop | drain | compose | up | gpu) ;;
        create | namespace | secret | generic | apply | enable | daemon-reload | */nologin) ;;
        pose-redis) grep -q "secretName: $word$" deploy/kubernetes/deployment.yaml || exit 1 ;;
        deploy/*) test -e "$word" || exit 1 ;;
        worker=pose-worker:*) grep -q "name: worker$" deploy/kubernetes/deployment.yaml || exit 1 ;;
        deployment/*) grep -q "^  name: ${word#*/}$" deploy/kubernetes/deployment.yaml || exit 1 ;;
        *@*) test -e "deploy/systemd/${word%@*}@.service" || exit 1 ;;
        *.target) test -e "deploy/systemd/$word" || exit 1 ;;
        worker-*) grep -q "^  $word:" deploy/compose.yaml || exit 1 ;;
        *) echo "what is $word?" >&2; exit 1 ;;
    esac
done
"""


@pytest.fixture(scope="module")
def second_redis(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of another Redis with the same users."""
    port, folder = free_port(), tmp_path_factory.mktemp("second")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    options += ["--aclfile", str(deployment.folder / "secrets/users.acl")]
    command = [need("redis-server", "redis-server"), str(DEPLOY / "redis/redis.conf"), *options]
    child = start_child(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(port))
        yield port
    finally:
        stop_child(child, grace_s=5)


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            client.ping()
    except redis.AuthenticationError:
        return True
    except redis.RedisError:
        return False
    return True


@pytest.fixture
def operator(deployment: Deployment, second_redis: int, shell: Dict[str, str], tmp_path: Path) -> Dict[str, str]:
    """The environment in which the guide's commands are executed."""
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for name in ("kubectl", "systemctl", "docker", "useradd"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    admin = deployment.url("admin")
    return {
        **shell,
        "PATH": f"{tmp_path}:{shell['PATH']}",
        "ADMIN": admin,
        "NEW": admin.replace(f":{deployment.redis_port}/", f":{second_redis}/"),
        "OLD_HOST": "127.0.0.1",
        "OLD_PORT": str(deployment.redis_port),
        "NEW_PASSWORD": "another-password",
        "PYTHON": "python",
        "POSE_METRICS_PORT": "0",
        "POSE_HEARTBEAT_DIR": str(tmp_path / "beats"),
        "MULTI_DIR": str(tmp_path / "multi"),
        "C_FORCE_ROOT": "1",
    }


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_commands_of_the_guide(
    deployment: Deployment, operator: Dict[str, str], number: int, tmp_path: Path
) -> None:
    if "worker dead" in BLOCKS[number]:
        _leave_a_dead_letter(deployment, f"given-up-{number}")
    block = BLOCKS[number].replace("deploy/secrets", str(deployment.folder / "secrets"))
    block = block.replace("127.0.0.1:9100", f"127.0.0.1:{deployment.metrics_port}")
    block = block.replace(" /etc/", f" {tmp_path}/etc/")
    try:
        done = subprocess.run(
            ["sh", "-euc", block], cwd=ROOT, env=operator, capture_output=True, text=True, timeout=100
        )
    finally:
        with deployment.redis("admin") as admin:
            admin.client_unpause()
            password = (deployment.folder / "secrets/client-password").read_text()
            admin.execute_command("ACL", "SETUSER", "client", f">{password}")
        for pidfile in Path(operator["MULTI_DIR"]).glob("*.pid"):  # of a block that was broken off
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pidfile.read_text()), signal.SIGKILL)
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert "(error)" not in done.stdout
    if "dead requeue" in block:
        with deployment.redis("admin") as admin:
            wait_until(lambda: admin.hget(f"pose:job:given-up-{number}", "state") == "failed")
    if "install -D" in block:
        unit = (tmp_path / "etc/systemd/system/pose-worker@.service").read_text()
        assert {f"/etc/pose-worker/{path.name}" for path in (tmp_path / "etc/pose-worker").iterdir()} == set(
            re.findall(r"/etc/pose-worker/[a-z-]+", re.sub(r"^#.*", "", unit, flags=re.M))
        )
        assert (tmp_path / "etc/pose-worker/broker-url").stat().st_mode & 0o777 == 0o600
    if "REPLICAOF NO ONE" in block:
        with redis.Redis.from_url(operator["NEW"], decode_responses=True) as new:
            assert new.role()[0] == "master"
            assert new.exists("_kombu.binding.pose")
    if "ACL SAVE" in block:
        port = deployment.redis_port
        assert redis.Redis(port=port, username="client", password="another-password").ping()


def _leave_a_dead_letter(deployment: Deployment, job_id: str) -> None:
    with deployment.redis("admin") as admin:
        ledger, message = Ledger(admin, "pose"), Message("pose", kwargs={"image": "/nowhere.jpg"})
        result = ResultKey(f"celery-task-meta-{job_id}", "{}", 10)
        assert ledger.begin(job_id, "nobody", message, {"worker": "a", "pid": 1}, 0, result).verdict == "dead"
        assert ledger.finish(job_id, "dead", result)


def test_every_alert_is_in_the_guide_and_no_other() -> None:
    groups = yaml.safe_load((DEPLOY / "observe/alerts.yaml").read_text())["groups"]
    shipped = {rule["alert"] for group in groups for rule in group["rules"]}
    assert set(re.findall(r"^\| (Pose\w+) \|", GUIDE, re.M)) == shipped


def test_every_setting_and_metric_that_the_guide_names_exists() -> None:
    from worker.settings import PREFIX, Settings, faults

    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = {name[: -len("_FILE")] if name.endswith("_FILE") else name for name in re.findall(r"POSE_[A-Z_]+", GUIDE)}
    assert all("was removed" in "".join(faults({name: "x"})) for name in named - known), named - known
    source = (ROOT / "worker/observe/metrics.py").read_text()
    for name in re.findall(r"`(pose_[a-z_]+)`", GUIDE):
        assert f'"{re.sub("_total$", "", name)}"' in source
