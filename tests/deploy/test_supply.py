"""The locks agree with the requirements; what an audit finds fails, and what it cannot find out is said."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.support import ROOT


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("supply", ROOT / "deploy/supply.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


supply = _load()
LOCKS = [ROOT / supply.LOCK, ROOT / supply.CPU_LOCK]


def test_everything_required_is_locked_at_its_version() -> None:
    required = supply.pins((ROOT / supply.REQUIREMENTS).read_text())
    assert len(required) >= 15
    for lock in LOCKS:
        locked = {name: version.partition("+")[0] for name, version in supply.pins(lock.read_text()).items()}
        assert {name: locked.get(name) for name in required} == required, "run: make lock"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_is_pinned_with_hashes_and_from_nowhere_in_particular(lock: Path) -> None:
    text = lock.read_text()
    entries = supply.entries(text)
    assert len(entries) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE)) >= 10
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==[^\s;]+( ; [^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\\n)?)+$", entry), entry
    assert "://" not in text
    assert "index-url" not in text


def test_each_build_of_torch_is_admitted_and_the_one_for_cpus_brings_no_cuda() -> None:
    whole, cpu = (lock.read_text() for lock in LOCKS)
    [build] = [entry for entry in supply.entries(cpu) if entry.startswith("torch==")]
    [either] = [entry for entry in supply.entries(whole) if entry.startswith("torch==")]
    assert re.match(r"torch==[0-9.]+\+cpu ", build)
    assert set(re.findall("sha256:.*", build)) < set(re.findall("sha256:[0-9a-f]+", either))
    assert [name for name in supply.pins(cpu) if name.startswith(("nvidia-", "cuda-", "triton"))] == ["nvidia-ml-py"]
    assert set(supply.pins(cpu)) < set(supply.pins(whole))


_GOOD = {"name": "a", "version": "1", "vulns": []}
_BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
_UNKNOWN = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("found", "said", "told", "status"),
    [
        ([], "ConnectionError: no route\n", "nothing was checked, for the database of vulnerabilities is out of", None),
        ([_UNKNOWN, _UNKNOWN], "", "nothing was checked", None),
        ([_GOOD, _UNKNOWN], "", "1 packages checked, 1 unknown there, 0 vulnerabilities", None),
        ([_GOOD, _BAD], "", "b 2 has PYSEC-1, mended in 3", 1),
    ],
)
def test_an_audit_fails_for_what_it_finds_alone(
    found: List[Dict[str, Any]], said: str, told: str, status: Any, capsys: pytest.CaptureFixture
) -> None:
    ended = None
    try:
        supply.verdict(found, said)
    except SystemExit as exc:
        ended = exc.code
    assert ended == status
    assert told in capsys.readouterr().out
