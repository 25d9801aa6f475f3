"""What the signal of the soft time limit ends, and what the parent's timers wait for."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Tuple

import billiard.pool
import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from worker.device.board import Board, SlotRow, now
from worker.process import limits
from worker.process.limits import Limits, at_work, heed


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Sends this process, a slot as far as it knows, what Celery sends at the soft limit."""
    monkeypatch.setattr(billiard.pool, "soft_timeout_sighandler", billiard.pool.soft_timeout_sighandler)
    monkeypatch.setattr(limits, "_row", None)
    heed(SlotRow())
    before = signal.signal(signal.SIGUSR1, billiard.pool.soft_timeout_sighandler)  # as the pool does, then
    yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_the_soft_limit_ends_work_and_nothing_else(reach: Callable[[], None]) -> None:
    reach()  # the attempt is being noted
    with pytest.raises(SoftTimeLimitExceeded), at_work():
        reach()
    reach()  # what has happened is being told


def test_it_does_so_once_so_that_what_was_begun_can_be_cleared_up(reach: Callable[[], None]) -> None:
    cleared = []

    def work() -> None:
        try:
            reach()
        finally:
            reach()
            cleared.append(True)

    with pytest.raises(SoftTimeLimitExceeded), at_work():
        work()
    assert cleared


def test_each_job_has_a_limit_of_its_own(reach: Callable[[], None]) -> None:
    for _ in range(3):
        with pytest.raises(SoftTimeLimitExceeded), at_work():
            reach()


class Pool:
    """As much of Celery's pool as its timers need; `reached` is what was done to whom."""

    def __init__(self) -> None:
        self.reached: List[Tuple[str, int]] = []
        self._cache: Dict[int, Any] = {7: SimpleNamespace(_worker_pid=123, _timeout=9.0)}
        self._tref_for_id: Dict[int, Any] = {}
        self.waiting: List[float] = []

    def call_later(self, seconds: float, *_: Any) -> str:
        self.waiting.append(seconds)
        return "timer"

    def _on_soft_timeout(self, job: int, *_: Any) -> None:
        self.reached.append(("soft", job))

    def _on_hard_timeout(self, job: int) -> None:
        self.reached.append(("hard", job))

    def reach(self) -> None:
        self._on_soft_timeout(7, 5.0, 9.0, self)
        self._on_hard_timeout(7)


@pytest.fixture
def board() -> Board:
    board = Board.create()
    board.slot(1).pid = 123
    return board


def test_a_slot_that_waits_for_redis_reaches_no_limit(board: Board) -> None:
    pool = Pool()
    Limits(pool, pool, board, 2)
    pool.reach()
    assert pool.reached == []
    assert pool.waiting == [1.0, 1.0]
    assert pool._tref_for_id == {7: "timer"}  # by which Celery cancels it when the job has ended


def test_limits_count_from_where_work_begins(board: Board) -> None:
    pool = Pool()
    Limits(pool, pool, board, 2)
    board.slot(1).working_since = now() - 3
    pool.reach()
    assert pool.reached == []
    assert pool.waiting == [pytest.approx(2.0, abs=0.5), pytest.approx(6.0, abs=0.5)]
    board.slot(1).working_since = now() - 6
    pool.reach()
    board.slot(1).working_since = now() - 10
    pool.reach()
    assert pool.reached == [("soft", 7), ("soft", 7), ("hard", 7)]


def test_a_job_that_has_ended_or_whose_slot_is_gone_is_left_to_celery(board: Board) -> None:
    pool = Pool()
    Limits(pool, pool, board, 2)
    board.slot(1).pid = 124
    pool.reach()
    pool._cache.clear()
    pool.reach()
    assert pool.reached == [("soft", 7), ("hard", 7)] * 2
