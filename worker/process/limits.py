"""A job's time limits, which count while it is worked on: not while its slot waits for Redis, before or after that.

Celery counts from the moment at which a slot takes the message, and its signal may come at any: also while a failure is
being told, which would then end as an error of no type, or while a result is kept until Redis is back.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Optional

import billiard.pool
from billiard.exceptions import SoftTimeLimitExceeded

from worker.device.board import Board, SlotRow, now

#: Seconds after which a slot that does not work, but has a job, is looked at again.
_AGAIN_S = 1.0
_row: Optional[SlotRow] = None


def heed(row: SlotRow) -> None:
    """In a slot that is about to start: `row` is its own, and the soft limit's signal counts within :func:`at_work`."""
    global _row
    _row, row.working_since = row, 0.0
    billiard.pool.soft_timeout_sighandler = _reached  # what the pool sets as the handler, next


@contextmanager
def at_work() -> Iterator[None]:
    """In the slot: the job is worked on from here.

    Raises:
        SoftTimeLimitExceeded: at any point within, at most once, when the soft limit is reached.
    """
    row = _row or SlotRow()
    row.working_since = now()
    try:
        yield
    finally:
        row.working_since = 0.0


def _reached(*_: Any) -> None:
    if _row is not None and _row.working_since:
        _row.working_since = 0.0  # what is raised must be able to leave in peace
        raise SoftTimeLimitExceeded


class Limits:
    """In the parent: keeps the timers of Celery's `pool` waiting for as long as its slots have not worked enough."""

    def __init__(self, pool: Any, hub: Any, board: Board, slots: int) -> None:
        self._pool, self._hub = pool, hub
        self._rows = [board.slot(index) for index in range(slots)]
        self._on_soft, self._on_hard = pool._on_soft_timeout, pool._on_hard_timeout
        pool._on_soft_timeout, pool._on_hard_timeout = self._soft, self._hard

    def _soft(self, job: int, soft: float, hard: float, hub: Any) -> None:
        left = self._left(job, soft)
        if left > 0:
            self._pool._tref_for_id[job] = hub.call_later(left, self._soft, job, soft, hard, hub)
        else:
            self._on_soft(job, soft, hard, hub)

    def _hard(self, job: int) -> None:
        entry = self._pool._cache.get(job)
        left = self._left(job, entry._timeout) if entry is not None else 0.0
        if left > 0:
            self._pool._tref_for_id[job] = self._hub.call_later(left, self._hard, job)
        else:
            self._on_hard(job)

    def _left(self, job: int, limit: float) -> float:
        """Seconds until `limit` is to be looked at once more; 0 if it is reached, or the slot gone."""
        entry = self._pool._cache.get(job)
        row = next((row for row in self._rows if entry is not None and row.pid == entry._worker_pid), None)
        if row is None:
            return 0.0
        since = row.working_since
        return max(0.0, since + limit - now()) if since else _AGAIN_S
