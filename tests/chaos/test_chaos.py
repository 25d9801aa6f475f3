"""The short form of the chaos run: every job ends once, whatever dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.account import Account
from tests.chaos.run import Run

pytestmark = pytest.mark.queue


@pytest.mark.timeout(200)
def test_every_job_ends_once_whatever_dies(tmp_path: Path, thin_net: Path, seed: int) -> None:
    run = Run(tmp_path, seed=seed, workers=2, outage_s=3, lease_s=3, poison=(0.02, 0))
    try:
        run.play(jobs=100, kills=4, pause_s=0.8)
        account = Account(run, patience_s=120)
    finally:
        run.workers.stop()
        run.close()
    assert account.faults == [], run.workers.log.read_text(errors="replace")[-5000:]
    assert sum(account.outcomes.values()) == len(run.submitted) >= 100
