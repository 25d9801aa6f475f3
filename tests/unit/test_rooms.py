"""Which room may know which: imports go left to right, and light processes stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Set, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
#: What each room must not import, at any depth of its functions.
FORBIDDEN = {
    "worker/pose": ("worker.engine", "worker.device", "models", "torch", "celery", "redis", "kombu", "os", "pathlib"),
    "worker/engine": ("worker.pose", "worker.device", "celery", "redis", "kombu", "cv2"),
    "worker/device": ("worker.pose", "worker.task", "worker.app", "celery", "kombu", "cv2"),
    "models": ("worker.pose", "worker.device", "worker.app", "worker.task", "worker.client", "celery", "redis"),
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_imports_from_its_left(room: str) -> None:
    wrong: Set[Tuple[str, str]] = set()
    for path in (ROOT / room).rglob("*.py"):
        for imported in _imports(path):
            if any(imported == name or imported.startswith(f"{name}.") for name in FORBIDDEN[room]):
                wrong.add((str(path.relative_to(ROOT)), imported))
    assert wrong == set()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("worker.client", "torch cv2 numba"),
        ("worker.client.aio", "torch cv2 numba"),
        ("worker.people, worker.pose.formats, worker.notify.webhook", "torch cv2 numba"),
        ("worker.cli.report", "torch cv2 numba"),
        ("worker.pose", "torch celery redis kombu"),
        ("worker.app", "torch cv2 numba"),
        ("worker.settings", "torch cv2 celery redis"),
        ("worker.__main__, worker.observe.heartbeat", "torch cv2 numba celery redis numpy tqdm"),  # the health check
        ("worker.engine", "torch cv2 celery redis"),
    ],
)
def test_importing_a_module_does_not_load_what_it_must_not(module: str, absent: str) -> None:
    script = f"import {module}, sys; print(*[name for name in {absent.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
