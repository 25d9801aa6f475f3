"""What pip installs for senders of jobs: everything that a client needs, and nothing beyond what it declares."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Set

from tests.support import clean_environ

#: Imports what a sender uses while every distribution but those named is out of reach.
SCRIPT = """
import sys

class Walls:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Walls())
import worker.client, worker.aio, worker.pose.formats, worker.webhook, worker.wire
import worker.__main__, worker.outputs, worker.report, worker.submission
print(worker.client.PoseClient("redis://127.0.0.1:1/0"), worker.client.__file__)
"""


def test_a_client_needs_only_what_the_package_declares(client_package: Path, tmp_path: Path) -> None:
    (about,) = client_package.glob("*.dist-info")
    declared = metadata.Distribution.at(about).requires or []
    there = _closure({_name(one) for one in declared})
    assert "torch" not in there
    absent = {top for top, names in metadata.packages_distributions().items() if not there & set(map(_name, names))}
    assert {"torch", "cv2", "numba", "pynvml"} <= absent
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, ",".join(absent - {"worker"})],
        cwd=tmp_path,
        env={**clean_environ(), "PYTHONPATH": str(client_package)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert str(client_package) in done.stdout


def test_its_types_are_there_for_those_who_check_theirs(client_package: Path) -> None:
    assert (client_package / "worker/py.typed").exists()
    assert {path.name for path in client_package.iterdir()} == {"worker", next(client_package.glob("*.dist-info")).name}


def _closure(names: Set[str]) -> Set[str]:
    """`names` and all that they require in turn, without extras."""
    found: Set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform or Python
            continue
        names |= {_name(one) for one in required if "extra ==" not in one} - found
    return found


def _name(requirement: str) -> str:
    """The normalised name in a requirement."""
    (name,) = re.findall(r"^[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()
