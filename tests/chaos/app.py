"""The worker's app with poison: images whose names say what dies when they are read, or how long that takes."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any

from worker.jobs import ledger
from worker.process import parent

# Before anybody else reads them; a test that waits for leases to expire is then a short one.
ledger.LEASE_S = float(os.environ.get("CHAOS_LEASE_S", ledger.LEASE_S))
parent.FROZEN_S = float(os.environ.get("CHAOS_FROZEN_S", parent.FROZEN_S))

from worker.app import app  # noqa: E402
from worker.process import slot  # noqa: E402

__all__ = ["app"]

_load_image = slot.Slot.load_image


def _poisoned(self: Any, path: str, *told: Any) -> Any:
    naps = re.search(r"naps-(\d+)s", path)
    if naps:
        time.sleep(float(naps[1]))
    if "hangs-once" in path and not os.path.exists(path + ".hung"):  # noqa: PTH110
        open(path + ".hung", "w").close()  # noqa: PTH123
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # deaf to the soft time limit, as a C library is
        time.sleep(3600)
    if "kills-slot" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    if "kills-worker" in path:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)  # this process dies with its parent, but not before it; else the job might end in between
    if "eats-memory" in path:
        raise MemoryError
    return _load_image(self, path, *told)


slot.Slot.load_image = _poisoned  # type: ignore[method-assign]
