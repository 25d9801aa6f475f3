"""Start and end: `worker submit --local` of the three samples, with the compiled decoder in its cache and without.

    python -m benchmarks.fleet start

Seconds from the command's start to its first picture, and from its last picture to its end.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, NamedTuple

from benchmarks.stand import QUIET, ROOT

#: Seconds that are to be reached: to the first picture, from the last one to the end, and in all without a cache.
_FIRST_S, _END_S, _COLD_S = 3.0, 1.5, 12.0
_TURNS = 5


class _Run(NamedTuple):
    first_s: float
    end_s: float
    all_s: float


def run(folder: Path) -> None:
    """Print the times of both."""
    _submit(folder / "warm-up", {})
    warm = [_submit(folder / f"warm-{turn}", {}) for turn in range(_TURNS)]
    cold = [_submit(folder / f"cold-{turn}", {"NUMBA_CACHE_DIR": f"{folder}/cache-{turn}"}) for turn in range(2)]
    first, end = (statistics.median(side) for side in list(zip(*warm))[:2])
    print(
        f"start: median of {_TURNS}: first picture after {first:.2f} s (to reach {_FIRST_S:g}), over {end:.2f} s after",
        end=" ",
    )
    print(f"the last (to reach {_END_S:g}); load {os.getloadavg()[0]:.1f}")
    print(f"start: decoder not compiled before: {min(one.all_s for one in cold):.2f} s in all (to reach {_COLD_S:g})")


def _submit(out: Path, environment: Dict[str, str]) -> _Run:
    command = [sys.executable, "-m", "worker", "submit", "--local", "--out", str(out), str(ROOT / "samples")]
    start = time.time()
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, **QUIET)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    over = time.time()
    pictures: List[float] = [path.stat().st_mtime for path in out.glob("*_rendered.jpg")]
    return _Run(min(pictures) - start, over - max(pictures), over - start)
