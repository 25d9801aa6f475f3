"""A slot's own thread: gives signs of life, and keeps signals that are not the worker's from ending a job."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Callable, Optional, Sequence

import redis

from worker.device.board import Board, SlotRow, now
from worker.device.tally import ATTEMPTS, PEOPLE, SECONDS, WAITS
from worker.jobs.ledger import LEASE_S
from worker.jobs.outcome import Outcome
from worker.observe.tracing import Lap

#: What a whole process group is sent when a host goes down; the worker's parent then drains, and slots work on.
_SIGNALS = {signal.SIGTERM, signal.SIGHUP}
_BEAT_S = 1.0


class Watch:
    """One slot's row on the board, and its watch thread. Made in the slot's main thread, before any other thread.

    Args:
        index: the slot's number in its worker.
    """

    def __init__(self, board: Board, index: int) -> None:
        self._board = board
        self._row: SlotRow = board.slot(index)
        if self._row.busy_since:  # the slot before this one died with a job in work
            self._row.tally.count("lost")
        self._row.tally.starts += 1
        self._row.pid, self._row.beat, self._row.busy_since = os.getpid(), now(), 0.0
        self._parent = os.getppid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._renew: Optional[Callable[[], None]] = None
        threading.Thread(target=self._run, name="watch", daemon=True).start()
        threading.Thread(target=self._renew_lease, name="lease", daemon=True).start()

    def begin(self, renew: Optional[Callable[[], None]] = None) -> None:
        """A job is in work from now on; `renew` tells the ledger so, now and then."""
        self._row.busy_since, self._renew = now(), renew

    @property
    def busy_s(self) -> float:
        """Seconds for which the job has been in work."""
        return now() - self._row.busy_since if self._row.busy_since else 0.0

    def end(self, outcome: Outcome, laps: Sequence[Lap] = ()) -> None:
        """It is not any more, and is counted by its `outcome` and the stages it came through."""
        self._row.busy_since, self._renew = 0.0, None
        tally = self._row.tally
        tally.count(outcome.kind, outcome.error_name)
        if outcome.kind == "ignored":
            return
        tally.seconds.observe(outcome.seconds, SECONDS)
        if outcome.waited_s is not None:
            tally.wait.observe(outcome.waited_s, WAITS)
        self._row.done += 1
        if outcome.error is not None:
            self._row.failed += 1
            self._board.last_error = str(outcome.error)
        if outcome.kind in ("succeeded", "failed", "dead"):
            tally.attempts.observe(outcome.attempt, ATTEMPTS)
        for lap in laps:
            tally.stage(lap.stage, lap.ended - lap.begun)
        if outcome.result:
            tally.people.observe(len(outcome.result["people"]), PEOPLE)

    def _run(self) -> None:
        while True:
            received = signal.sigtimedwait(_SIGNALS, _BEAT_S)
            self._row.beat = now()
            if received and (self._board.leaving or received.si_pid == self._parent):
                # From the parent it means what it says. Python would tell the main thread, which may be in a long wait.
                os.kill(os.getpid(), signal.SIGKILL)

    def _renew_lease(self) -> None:
        while True:
            time.sleep(LEASE_S / 4)
            renew = self._renew
            if renew is not None:
                with contextlib.suppress(redis.RedisError):
                    renew()
