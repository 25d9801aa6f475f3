"""A slot's life: signs of it for the parent, the lease of its job for the ledger, and its time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any, Callable, Iterator, Optional

import redis

from worker.device.board import Board, SlotRow, now
from worker.device.tally import ATTEMPTS, PEOPLE, SECONDS, WAITS
from worker.jobs.attempt import AttemptEnd
from worker.jobs.ledger import LEASE_S
from worker.video_contract import PART_TASK

#: What a whole process group is sent when a host goes down; the worker's parent then drains, and slots work on.
_SIGNALS = {signal.SIGTERM, signal.SIGHUP}
_BEAT_S = 1.0


class TimeUp(BaseException):
    """The soft time limit is reached.

    No Exception, so that what a decoder is guarded with for errors of its own does not take it for one.
    """


class Life:
    """One slot's row on the board, and the threads that keep it.

    Made in the slot's main thread, before any other thread.

    Args:
        index: the slot's number in its worker.
    """

    def __init__(self, board: Board, index: int) -> None:
        self._board = board
        self._row: SlotRow = board.slot(index)
        if self._row.busy_since:  # the slot before this one died with a job in work
            self._row.tally.count("lost")
        self._row.tally.starts += 1
        self._row.busy_since = self._row.working_since = self._row.decodes_from = 0.0
        self._row.beat = now()
        self._row.pid = os.getpid()  # last: from here on, the parent looks after this row
        self._parent = os.getppid()
        self._renew: Optional[Callable[[], None]] = None
        self._limited, self._limit_s = False, 0.0
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        signal.signal(signal.SIGALRM, self._time_is_up)
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        threading.Thread(target=self._renew_lease, name="lease", daemon=True).start()

    def begin(self, renew: Optional[Callable[[], None]] = None) -> None:
        """A job is in work from now on; `renew` tells the ledger so, now and then."""
        self._row.busy_since, self._renew = now(), renew

    @contextlib.contextmanager
    def at_work(self, limit_s: float) -> Iterator[None]:
        """The job is worked on within: there its time limits count, and not while its slot waits for Redis.

        The soft one, `limit_s`, is a timer of this process. The hard one is the parent's, which kills a slot that has
        worked for too long, such as in a call into C that never returns.

        Raises:
            TimeUp: at any point within, at most once. It may also leave the ``with`` statement itself.
        """
        self._limit_s, self._limited = limit_s, True
        self.go_on()
        try:
            yield
        finally:
            self._limited = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._row.working_since = 0.0

    def go_on(self) -> None:
        """A piece of the job's work is done: the next one has the time limits of a whole job."""
        self._row.working_since = now()
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """The image is decoded within: there the parent counts the processor time."""
        self._row.decodes_from = time.process_time()
        try:
            yield
        finally:
            self._row.decodes_from = 0.0

    def end(self, end: AttemptEnd) -> None:
        """The job is not in work any more, and is counted by its end."""
        self._row.busy_since, self._row.working_since, self._renew = 0.0, 0.0, None
        tally = self._row.tally
        if end.message.task == PART_TASK:  # no job of a sender's
            tally.segments += end.kind == "succeeded"
            tally.frames += end.result.get("frames", 0)
            return
        tally.count(end.kind, end.error_name)
        if end.kind in ("ignored", "continued"):
            return
        tally.seconds.observe(end.seconds, SECONDS)
        if end.waited_s is not None:
            tally.wait.observe(end.waited_s, WAITS)
        self._row.done += 1
        if end.error is not None:
            self._row.failed += 1
            self._board.last_error = str(end.error)
        if end.kind in ("succeeded", "failed", "dead"):
            tally.attempts.observe(end.attempt, ATTEMPTS)
        for lap in end.laps:
            tally.stage(lap.stage, lap.ended - lap.begun)
        if "people" in end.result:
            tally.people.observe(len(end.result["people"]), PEOPLE)

    def _time_is_up(self, *_: Any) -> None:
        if self._limited:
            self._limited = False  # once: what is raised must be able to leave in peace
            raise TimeUp

    def _beat(self) -> None:
        while True:
            received = signal.sigtimedwait(_SIGNALS, _BEAT_S)
            self._row.beat = now()
            if received and (self._board.worker.leaving or received.si_pid == self._parent):
                # From the parent it means what it says. Python would tell the main thread, which may be in a long wait.
                os.kill(os.getpid(), signal.SIGKILL)

    def _renew_lease(self) -> None:
        while True:
            time.sleep(LEASE_S / 4)
            renew = self._renew
            if renew is not None:
                with contextlib.suppress(redis.RedisError):
                    renew()
