"""What an attempt does while Redis is away, and how long a job waits for its next one."""

from __future__ import annotations

from typing import Any, Iterator, List

import pytest
import redis

from worker.errors import DeadLetter, DeviceLost, ImageNotReady
from worker.jobs import attempt as module
from worker.jobs.attempt import Attempt, Holding, Superfluous, outlast
from worker.jobs.ledger import Beginning, Message, ResultKey
from worker.settings import Settings


class FakeLedger:
    """Answers as it is told; `asked` is what it was asked for."""

    def __init__(self, verdict: str = "begun", attempts: int = 1, age_s: float = 0.0, state: str = "later") -> None:
        self.answer, self.state = Beginning(verdict, attempts, age_s), state
        self.pauses: List[float] = []

    def begin(self, *_: Any) -> Beginning:
        return self.answer

    def later(self, job_id: str, holder: str, what: str, pause_s: float, *_: Any, **__: Any) -> str:
        self.pauses.append(pause_s)
        return self.state


def begun(ledger: Any) -> Attempt:
    settings = Settings(retry_base_s=1, retry_max_s=60)
    made = Attempt(ledger, settings, Holding("1", "me"), Message("pose"), {}, lambda *_: ResultKey("", "", 1))
    made.begin()
    return made


@pytest.mark.parametrize(("attempts", "longest"), [(1, 1), (2, 2), (5, 16), (7, 60), (400, 60)])
def test_pauses_double_up_to_a_limit_and_differ(attempts: int, longest: float) -> None:
    ledger = FakeLedger(attempts=attempts)
    attempt = begun(ledger)
    pauses = [attempt.put_off(DeviceLost("gone")) for _ in range(200)]
    assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert len(set(pauses)) > 100  # what failed together does not come back together
    assert pauses == ledger.pauses


@pytest.mark.parametrize(("age_s", "longest"), [(0.1, 1), (7, 7), (4000, 60)])
def test_a_file_that_is_not_there_yet_is_looked_for_less_and_less_often(age_s: float, longest: float) -> None:
    attempt = begun(FakeLedger(attempts=1, age_s=age_s))
    pauses = [attempt.put_off(ImageNotReady("not there")) for _ in range(200)]
    assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_a_job_that_has_used_up_its_attempts_is_dead_before_or_after_one() -> None:
    with pytest.raises(DeadLetter, match=r"Job 1 was tried 5 times in vain, last: its process or its worker died"):
        begun(FakeLedger("dead", attempts=5))
    with pytest.raises(DeadLetter, match=r"Job 1 was tried once in vain, last: DeviceLost: gone; see: python -m"):
        begun(FakeLedger(state="dead")).put_off(DeviceLost("gone."))


@pytest.mark.parametrize("verdict", ["running", "done", "buried", "other"])
def test_a_message_of_a_job_that_is_not_to_be_done_is_superfluous(verdict: str) -> None:
    with pytest.raises(Superfluous):
        begun(FakeLedger(verdict))


def test_an_end_has_what_the_attempt_knows() -> None:
    attempt = begun(FakeLedger(attempts=1, age_s=3.5))
    attempt.stopwatch.lap("decode")
    end = attempt.end("failed", error=ValueError("odd"))
    assert (end.job_id, end.attempt, end.kind, end.error_name, end.is_expected) == (
        "1",
        1,
        "failed",
        "ValueError",
        False,
    )
    assert end.waited_s == 3.5
    assert [lap.stage for lap in end.laps] == ["decode"]
    assert begun(FakeLedger(attempts=2, age_s=3.5)).end("failed").waited_s is None  # that was for another attempt


def test_a_redis_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    answers: Iterator[int] = iter(range(9))

    def step() -> int:
        number = next(answers)
        if number < 3:
            raise redis.ConnectionError("away")
        return number

    assert outlast(step) == 3
