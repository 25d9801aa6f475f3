"""How often a child may die, and after how long it is started again."""

from __future__ import annotations

import pytest

from worker import children
from worker.children import Deaths


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(children, "time", made)
    return made


def test_pauses_double_up_to_the_longest_and_the_sixth_death_is_the_last(clock: _Clock) -> None:
    deaths = Deaths(0.5, 3.0)
    assert deaths.may_start
    pauses = []
    for _ in range(5):
        pauses.append(deaths.add())
        assert not deaths.may_start
        clock.now += pauses[-1]
        assert deaths.may_start
        assert not deaths.too_many
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0]
    deaths.add()
    assert (deaths.too_many, deaths.count) == (True, 6)


def test_a_death_is_forgotten_after_ten_minutes(clock: _Clock) -> None:
    deaths = Deaths(1.0, 60.0)
    for _ in range(20):
        assert deaths.add() == 1.0
        assert (deaths.too_many, deaths.count) == (False, 1)
        clock.now += 601
