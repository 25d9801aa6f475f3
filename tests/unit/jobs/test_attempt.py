"""What an attempt does while Redis is away, and how long a job waits for its next one."""

from __future__ import annotations

from typing import Iterator

import pytest
import redis

from worker.jobs import attempt
from worker.settings import Settings


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "settings", lambda: Settings(retry_base_s=1, retry_max_s=60))
    monkeypatch.setattr(attempt, "_AGAIN_S", 0.0)


@pytest.mark.parametrize(("attempts", "longest"), [(1, 1), (2, 2), (5, 16), (7, 60), (400, 60)])
def test_pauses_double_up_to_a_limit_and_differ(patient: None, attempts: int, longest: float) -> None:
    pauses = [attempt._pause_s(attempts) for _ in range(200)]
    assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert len(set(pauses)) > 100  # what failed together does not come back together


def test_a_redis_that_is_away_is_waited_for(patient: None) -> None:
    answers: Iterator[int] = iter(range(9))

    def step() -> int:
        number = next(answers)
        if number < 3:
            raise redis.ConnectionError("away")
        return number

    assert attempt.outlast(step) == 3
