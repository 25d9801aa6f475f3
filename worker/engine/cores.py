"""How many processor cores this process may fill: those it may run on, and no more than its cgroup's quota."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """At least 1. A container that is given 8 cores of a host of 128 can run on all of them, but not for long."""
    return max(1, int(min([len(os.sched_getaffinity(0)), *_quotas()])))


def _quotas() -> Iterator[float]:
    """The quota, in cores, of this process's cgroup and of each that it is in, by both versions of the interface."""
    with contextlib.suppress(OSError):
        for line in _OWN.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = _GROUPS / "cpu" if controllers else _GROUPS
            inner = Path(path.lstrip("/"))
            # In a container the path may be the host's, while the files that count are at the top.
            for folder in (top / inner, *(top / one for one in inner.parents)):
                with contextlib.suppress(OSError, ValueError):  # none here, or none is set
                    yield _quota(folder, bool(controllers))


def _quota(folder: Path, first_version: bool) -> float:
    """Raises ValueError if there is none."""
    if first_version:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    else:
        quota, period = (folder / "cpu.max").read_text().split()
    if int(quota) < 0:
        raise ValueError("no quota")
    return int(quota) / int(period)
