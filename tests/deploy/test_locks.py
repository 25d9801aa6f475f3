"""The locks agree with the requirements, and a CPU's has no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict

import pytest

from tests.support import ROOT

#: Each lock, and what it is made from.
LOCKS = {
    ROOT / "requirements.lock": ("requirements.txt", "requirements-cpu.in"),
    ROOT / "requirements-cpu.lock": ("requirements-cpu.in",),
}


def pins(text: str) -> Dict[str, str]:
    """The version of each package in a lock or in requirements."""
    return {name.lower(): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_everything_required_is_locked_at_its_version(lock: Path) -> None:
    required = pins("\n".join((ROOT / name).read_text() for name in LOCKS[lock]))
    assert len(required) >= 15
    locked = pins(lock.read_text())
    assert {name: locked.get(name) for name in required} == required, "run: make lock"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_is_pinned_with_hashes_and_from_nowhere_in_particular(lock: Path) -> None:
    text = lock.read_text()
    entries = [entry.rstrip() for entry in re.split(r"\n(?=[^ #])", text) if not entry.startswith("#")]
    assert len(entries) >= 40
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==[^\s;]+( ; [^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\\n)?)+$", entry), entry
    assert "://" not in text
    assert "index-url" not in text


def test_a_cpu_needs_neither_torch_nor_cuda_and_nothing_that_others_have_in_another_version() -> None:
    whole, cpu = (pins(lock.read_text()) for lock in LOCKS)
    assert "torch" in whole
    assert cpu.items() < whole.items()
    assert [name for name in cpu if name.startswith(("torch", "nvidia-", "cuda-", "triton"))] == ["nvidia-ml-py"]
