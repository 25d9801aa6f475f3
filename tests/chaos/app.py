"""The worker's app with poison: images whose names say what dies when they are read."""

from __future__ import annotations

import os
import signal
from typing import Any

from worker import slot
from worker.app import app

__all__ = ["app"]

_load_image = slot.Slot.load_image


def _poisoned(self: Any, path: str, *told: Any) -> Any:
    if "kills-slot" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    if "kills-worker" in path:
        os.kill(os.getppid(), signal.SIGKILL)
    return _load_image(self, path, *told)


slot.Slot.load_image = _poisoned  # type: ignore[method-assign]
