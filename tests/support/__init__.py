"""What tests call; the fixtures are in conftest.py."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Callable, Dict

ROOT = Path(__file__).resolve().parent.parent.parent


def clean_environ() -> Dict[str, str]:
    """This process's environment without POSE_* variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith("POSE_")}


def wait_until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Return `condition()` as soon as it is true; fail after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {condition}")
