"""The short form of the chaos run over films."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.films import FilmRun, account

pytestmark = pytest.mark.queue


@pytest.mark.timeout(200)
def test_every_film_ends_once_and_whole_whatever_dies(tmp_path: Path, thin_net: Path, seed: int) -> None:
    run = FilmRun(tmp_path, seed=seed)
    try:
        run.play(count=10, kills=6, pause_s=1.0)
        outcomes, faults = account(run, patience_s=120)
    finally:
        run.close()
    assert faults == [], run.workers.log.read_text(errors="replace")[-5000:]
    assert sum(outcomes.values()) == 10
