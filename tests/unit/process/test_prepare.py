"""What a worker's parent loads for its slots: the decoder, compiled once for the whole host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from tests.support import ROOT, clean_environ

_SCRIPT = """
import json
from worker.process.prepare import prepare
prepare()
from worker.pose import association, peaks
found = {}
for function in (peaks.find_peaks, association._candidates, association._link_in_order):
    stats = function.stats
    found[function.__name__] = [sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]
print(json.dumps(found))
"""


def _prepared(cache: Path) -> Dict[str, List[int]]:
    """Of each of the decoder's functions, how often it was loaded and how often compiled, in a process of its own."""
    environment = {**clean_environ(), "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    found: Dict[str, List[int]] = json.loads(done.stdout)
    return found


@pytest.mark.long
@pytest.mark.timeout(200)
def test_the_decoder_is_compiled_once_in_two_processes(tmp_path: Path) -> None:
    """One half is compiled here and the other beside it; for whoever comes next, both are there."""
    assert _prepared(tmp_path) == {"find_peaks": [0, 1], "_candidates": [1, 0], "_link_in_order": [1, 0]}
    assert _prepared(tmp_path) == {"find_peaks": [1, 0], "_candidates": [1, 0], "_link_in_order": [1, 0]}
