"""What pip installs for senders of jobs: everything that a client needs, and nothing beyond what it declares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Dict, List

import pytest

from tests.support import ROOT, clean_environ
from tests.support.distributions import walls

#: Imports what a sender uses, and sends.
SCRIPT = """
import worker.client, worker.client.aio, worker.pose.formats, worker.notify.webhook, worker.people
import worker.__main__, worker.cli.dead, worker.cli.writers, worker.cli.report, worker.cli.submit
import sys
with worker.client.PoseClient(sys.argv[1], queue="package") as client:
    print(client.submit("a.jpg").state, client.cancel("another"), worker.client.__file__)
"""


def _pythons() -> List[str]:
    """Each Python of this machine that the package promises to run on: of the PATH, and pyenv's."""
    names = [f"3.{minor}" for minor in range(9, 14)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {
        name: [*map(str, sorted(pyenv.glob(f"{name}.*/bin/python"))), shutil.which(f"python{name}")] for name in names
    }
    return [path for paths in found.values() for path in [next(filter(None, paths), None)] if path]


@pytest.fixture
def elsewhere(client_package: Path, tmp_path: Path) -> Dict[str, str]:
    """The environment of a sender's own service, in which only the package and what it declares are installed."""
    (about,) = client_package.glob("*.dist-info")
    absent = walls(tmp_path / "walls", metadata.Distribution.at(about).requires or [])
    assert {"torch", "cv2", "numba", "pynvml"} <= absent
    return {**clean_environ(), "PYTHONPATH": os.pathsep.join(map(str, (client_package, tmp_path / "walls")))}


@pytest.mark.queue
def test_a_client_needs_only_what_the_package_declares(
    client_package: Path, elsewhere: Dict[str, str], tmp_path: Path, broker: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, broker], cwd=tmp_path, env=elsewhere, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["PENDING", "True", str(client_package / "worker/client/__init__.py")]


@pytest.mark.parametrize("words", ["fleet", "submit --local a.jpg"])
def test_it_says_that_it_has_no_worker(elsewhere: Dict[str, str], tmp_path: Path, words: str) -> None:
    command = [sys.executable, "-m", "worker", *words.split()]
    environment = {**elsewhere, "POSE_BROKER_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "Only the client is installed here" in done.stderr


def test_its_types_are_there_for_those_who_check_theirs(client_package: Path) -> None:
    assert (client_package / "worker/py.typed").exists()
    assert {path.name for path in client_package.iterdir()} == {"worker", next(client_package.glob("*.dist-info")).name}


@pytest.mark.long
@pytest.mark.parametrize("python", _pythons())
def test_pip_builds_and_installs_it(python: str, tmp_path: Path) -> None:
    """With the build tool that pip chooses for this Python, and everything that the package requires there."""
    source, home = tmp_path / "source", tmp_path / "home"
    for name in ("worker", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", source)
    subprocess.run([python, "-m", "venv", home], check=True)
    pip = [str(home / "bin/pip"), "install", "-q", "--disable-pip-version-check", str(source)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    words = [str(home / "bin/python"), "-c", "import worker.client.aio, worker.cli.submit; print(worker.__file__)"]
    done = subprocess.run(words, cwd=tmp_path, env=clean_environ(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(home))
