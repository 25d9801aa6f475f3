"""The shipped files against their linters and schemas, and the rules that no schema knows."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import redis
import yaml

from tests.support import ROOT
from tests.support.box import image, instructions
from worker.client import PoseClient
from worker.jobs.ledger import Ledger, Message, ResultKey
from worker.servers import queue_list

DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
BIN = Path(sys.executable).parent


def tool(name: str) -> str:
    """A program of requirements-dev.txt."""
    found = shutil.which(name, path=str(BIN))
    if found is None:
        pytest.skip(f"there is no {name}; pip install -r requirements-dev.txt")
    return found


def documents(*names: str) -> List[Dict[str, Any]]:
    return [one for name in names for one in yaml.safe_load_all((DEPLOY / name).read_text())]


def manifests() -> Iterator[Dict[str, Any]]:
    kustomization = documents("kubernetes/kustomization.yaml")[0]
    return iter(documents(*(f"kubernetes/{name}" for name in kustomization["resources"])))


def manifest(kind: str) -> Dict[str, Any]:
    return next(one for one in manifests() if one["kind"] == kind)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_their_linter(dockerfile: Path) -> None:
    done = subprocess.run([tool("hadolint"), str(dockerfile)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_nobody_in_particular_and_write_where_they_say(dockerfile: Path) -> None:
    made = image(dockerfile)
    assert made.user.split(":")[0] not in ("root", "0")
    assert made.health_check == ["python", "-m", "worker", "check"]
    for variable in ("POSE_HEARTBEAT_DIR", "NUMBA_CACHE_DIR"):
        assert made.environment[variable] in made.volumes
    assert not any("PASSWORD" in name or "URL" in name for name in made.environment)
    for name, rest in instructions(dockerfile):
        if name == "FROM":
            assert ":latest" not in rest
            assert ":" in rest.split()[0]
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()


def test_compose_fits_its_schema_and_locks_everything_up() -> None:
    done = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    [compose] = documents("compose.yaml")
    services = compose["services"]
    assert {"redis", "worker-gpu", "worker-cpu", "flower"} <= set(services)
    for name in ("redis", "worker-gpu", "worker-cpu", "flower"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    for service in services.values():
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
    for name in ("worker-gpu", "worker-cpu"):
        build = services[name]["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).exists()
        grace = int(services[name]["stop_grace_period"].rstrip("s"))
        told = services[name]["environment"]
        assert grace > int(told["POSE_HARD_TIME_LIMIT_S"]) + int(told["POSE_GRACE_S"])
        writable = {one.split(":")[0] for one in services[name]["tmpfs"]}
        writable |= {one.split(":")[1] for one in services[name]["volumes"] if not one.endswith(":ro")}
        assert writable == set(image(DEPLOY / "Dockerfile.cpu").volumes)
    assert services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_manifests_fit_kubernetes_schemas() -> None:
    import kubernetes_validate

    kinds = []
    for one in manifests():
        if "keda" not in one["apiVersion"]:
            kubernetes_validate.validate(one, "1.34", strict=True)
            kinds.append(one["kind"])
    assert kinds == ["Deployment", "PodDisruptionBudget", "NetworkPolicy", "NetworkPolicy"]


def test_manifests_fit_keda_s_schemas() -> None:
    keda = pytest.importorskip("cloudcoil.models.keda.v1alpha1")
    for kind in ("ScaledObject", "TriggerAuthentication"):
        getattr(keda, kind).model_validate(manifest(kind), strict=False)
    scaled = manifest("ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == manifest("Deployment")["metadata"]["name"]
    assert "replicas" not in manifest("Deployment")["spec"]
    for trigger in scaled["triggers"]:
        assert trigger["type"] == "redis"
        assert trigger["authenticationRef"]["name"] == manifest("TriggerAuthentication")["metadata"]["name"]


def test_scaling_sees_all_jobs_that_wait_or_are_in_work(broker: str, redis_client: redis.Redis) -> None:
    """Where a client's jobs and the ledger's sets really are, counted as KEDA does, and added as it is told to."""
    scaled = manifest("ScaledObject")["spec"]
    counted = {trigger["name"]: trigger["metadata"]["listName"] for trigger in scaled["triggers"]}
    modifiers = scaled["advanced"]["scalingModifiers"]
    assert modifiers["formula"].split(" + ") == list(counted)
    assert (modifiers["target"], modifiers["activationTarget"]) == ("20", "0")

    def jobs() -> int:
        count = "return redis.call(redis.call('type', KEYS[1]).ok == 'zset' and 'zcard' or 'llen', KEYS[1])"
        return sum(redis_client.eval(count, 1, key) for key in counted.values())

    with PoseClient(broker) as client:
        handles = [client.submit("/a.jpg", priority=priority) for priority in range(10)]
    assert jobs() == 10
    lists = {key.decode() for key in redis_client.keys("pose*") if redis_client.type(key) == b"list"}
    assert lists == {key for name, key in counted.items() if name.startswith("p")}
    ledger, stored = Ledger(redis_client, "pose"), ResultKey("result", "text", 60)
    for number, job in enumerate(handles):
        message = json.loads(redis_client.rpop(queue_list("pose", number)))
        assert message["headers"]["id"] == job.id
        _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        ledger.begin(job.id, "a worker", Message("pose", kwargs=kwargs, priority=number), {}, 3, stored)
    assert jobs() == 10  # in work
    for job in handles:
        ledger.later(job.id, "a worker", "it may pass", 60.0, 3, stored)
    assert jobs() == 10
    for job in handles:
        ledger.finish(job.id, "done", stored)
    assert jobs() == 0


def test_scaling_to_zero_is_the_same_but_for_that() -> None:
    [option] = documents("kubernetes/to-zero/kustomization.yaml")
    assert (DEPLOY / "kubernetes" / "to-zero" / option["resources"][0]).resolve() == DEPLOY / "kubernetes"
    [patch] = option["patches"]
    assert patch["target"] == {"kind": "ScaledObject", "name": manifest("ScaledObject")["metadata"]["name"]}
    [step] = yaml.safe_load(patch["patch"])
    assert (step["op"], step["path"], step["value"]) == ("replace", "/spec/minReplicaCount", 0)
    assert manifest("ScaledObject")["spec"]["minReplicaCount"] == 1


def test_a_pod_has_one_gpu_and_the_time_that_its_drain_takes() -> None:
    spec = manifest("Deployment")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    literals = documents("kubernetes/kustomization.yaml")[0]["configMapGenerator"][0]["literals"]
    told = dict(literal.split("=", 1) for literal in literals)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    longest = int(told["POSE_HARD_TIME_LIMIT_S"]) + int(told["POSE_GRACE_S"])
    assert spec["terminationGracePeriodSeconds"] > longest
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] > 300  # POSE_START_TIMEOUT_S
    made = image(DEPLOY / "Dockerfile.cuda")
    assert container["livenessProbe"]["exec"]["command"] == made.health_check
    assert container["args"] == made.command
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written == set(made.volumes)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert str(spec["securityContext"]["runAsUser"]) == made.user.split(":")[0]
    assert manifest("PodDisruptionBudget")["spec"]["selector"] == manifest("Deployment")["spec"]["selector"]


def test_every_setting_that_is_shipped_is_one() -> None:
    from worker.settings import read_settings

    literals = documents("kubernetes/kustomization.yaml")[0]["configMapGenerator"][0]["literals"]
    lines = [line for line in (DEPLOY / "systemd/env").read_text().splitlines() if line.startswith("POSE_")]
    for pairs in (literals, lines):
        read_settings(dict(pair.split("=", 1) for pair in pairs))
    [compose] = documents("compose.yaml")
    told = compose["services"]["worker-cpu"]["environment"]
    read_settings({name: value for name, value in told.items() if not name.endswith("_FILE")})
    for dockerfile in DOCKERFILES:
        read_settings(image(dockerfile).environment)


def test_units_are_verified_by_systemd(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze; install the Debian package systemd")
    for path in filter(Path.is_file, (DEPLOY / "systemd").rglob("*")):
        text = path.read_text().replace("/opt/pose-worker/.venv/bin/python", sys.executable)
        target = tmp_path / path.relative_to(DEPLOY / "systemd")
        target.parent.mkdir(exist_ok=True)
        target.write_text(text.replace("/opt/pose-worker", str(ROOT)))
    units = [
        str(tmp_path / name) for name in ("pose-worker@gpu0.service", "pose-worker@cpu0.service", "pose-workers.target")
    ]
    (tmp_path / "pose-worker@gpu0.service").symlink_to("pose-worker@.service")
    (tmp_path / "pose-worker@cpu0.service").symlink_to("pose-worker@.service")
    done = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_shuts_the_worker_in() -> None:
    unit = dict(
        line.split("=", 1) for line in (DEPLOY / "systemd/pose-worker@.service").read_text().splitlines() if "=" in line
    )
    assert unit["ProtectProc"] == "invisible"
    assert unit["NoNewPrivileges"] == "yes"
    assert unit["MemoryMax"].endswith("G")
    assert "SystemCallFilter=@system-service\n" in (DEPLOY / "systemd/pose-worker@.service").read_text()
    assert "PrivateDevices=yes" in (DEPLOY / "systemd/pose-worker@cpu0.service.d/cpu.conf").read_text()


def test_workers_on_gpu_hosts_never_take_the_cpu() -> None:
    literals = documents("kubernetes/kustomization.yaml")[0]["configMapGenerator"][0]["literals"]
    assert "POSE_DEVICE=cuda" in literals
    services = documents("compose.yaml")[0]["services"]
    assert services["worker-gpu"]["environment"]["POSE_DEVICE"] == "cuda"
    assert "POSE_DEVICE" not in services["worker-cpu"]["environment"]
    unit = (DEPLOY / "systemd/pose-worker@.service").read_text()
    assert "\nEnvironment=POSE_DEVICE=cuda\n" in unit
    assert "\nEnvironment=POSE_DEVICE=cpu\n" in (DEPLOY / "systemd/pose-worker@cpu0.service.d/cpu.conf").read_text()
    privileged = [line for line in unit.splitlines() if line.startswith("ExecStartPre=-+")]
    assert {line.split()[0].rpartition("/")[2] for line in privileged} == {"nvidia-smi", "nvidia-modprobe"}


def test_network_policies_name_who_may_connect() -> None:
    """No rule is for everybody, but for HTTPS to public addresses."""
    policies = [one for one in manifests() if one["kind"] == "NetworkPolicy"]
    assert {one["metadata"]["name"] for one in policies} == {"pose-worker", "pose-redis"}
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"]["ingress"]:
            assert all(peer for peer in rule["from"])
        for rule in policy["spec"]["egress"]:
            assert rule["to"]
            for peer in rule["to"]:
                assert "ipBlock" not in peer or {one["port"] for one in rule["ports"]} == {443}
    [metrics] = policies[0]["spec"]["ingress"]
    [monitoring] = metrics["from"]
    assert monitoring["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}


def test_every_container_has_a_limit_of_memory() -> None:
    [compose] = documents("compose.yaml")
    assert [name for name, service in compose["services"].items() if "mem_limit" not in service] == []
    [container] = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    assert "memory" in container["resources"]["limits"]


def test_the_variant_with_tls_names_what_is_there() -> None:
    [compose], [tls] = documents("compose.yaml"), documents("compose-tls.yaml")
    assert set(tls["services"]) <= set(compose["services"])
    known = set(compose["secrets"]) | set(tls["secrets"])
    for service in tls["services"].values():
        assert set(service["secrets"]) <= known
    told = (DEPLOY / "redis/redis-tls.conf").read_text()
    for name in ("ca.crt", "redis.crt", "redis.key"):
        assert name in tls["services"]["redis"]["secrets"]
        assert f"/run/secrets/{name}" in told


def test_the_unit_starts_a_worker_as_the_fleet_does() -> None:
    from worker.process.fleet import worker_command

    unit = (DEPLOY / "systemd/pose-worker@.service").read_text()
    [start] = [line.partition("=")[2].split() for line in unit.splitlines() if line.startswith("ExecStart=")]
    expected = worker_command("NAME")
    assert set(start[1:]) == {word.replace("NAME@%h", "%i@%H") for word in expected[1:]}
    settings = dict(line.split("=") for line in (DEPLOY / "systemd/env").read_text().splitlines() if "=" in line)
    [stop] = [int(line.partition("=")[2]) for line in unit.splitlines() if line.startswith("TimeoutStopSec=")]
    assert stop > int(settings["POSE_HARD_TIME_LIMIT_S"]) + int(settings["POSE_GRACE_S"])


def test_shell_scripts_parse() -> None:
    for name in ("redis/make-secrets", "celery-multi"):
        subprocess.run(["sh", "-n", str(DEPLOY / name)], check=True)


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    board = json.loads((DEPLOY / "observe/dashboard.json").read_text())
    assert {"title", "uid", "panels", "templating", "schemaVersion"} <= set(board)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(places) == len(set(places))
    for panel in board["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert [target["refId"] for target in panel["targets"]] == list("ABCD")[: len(panel["targets"])]
