"""Reading files that strangers wrote in a process of its own: what makes Python crash, or grow, ends that one."""

from __future__ import annotations

import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, TypeVar

Result = TypeVar("Result")

#: Seconds of processor time, and bytes of memory beyond what the file needs.
_SECONDS, _MEMORY = 60, 1 << 30


def in_bounds(function: Callable[..., Result], path: Path, *arguments: Any) -> Result:
    """What ``function(path, *arguments)`` returns, run with at most a minute of work and memory in proportion.

    Raises:
        Exception: whatever `function` raises, or that its process ended.
    """
    size = path.stat().st_size if path.exists() else 0
    with ProcessPoolExecutor(1, get_context("spawn"), _limit, (size,)) as reader:
        return reader.submit(function, path, *arguments).result()


def _limit(file_bytes: int) -> None:
    """Of the process that reads: at most a minute of work, and memory for the file's arrays a few times over."""
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 8 * file_bytes + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
