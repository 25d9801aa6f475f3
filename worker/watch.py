"""A slot's own thread: gives signs of life, and keeps signals that are not the worker's from ending a job."""

from __future__ import annotations

import os
import signal
import threading

from worker.device.board import Board, SlotRow, now

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
        self._row.pid, self._row.beat, self._row.busy_since = os.getpid(), now(), 0.0
        self._parent = os.getppid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def begin(self) -> None:
        """A job is in work from now on."""
        self._row.busy_since = now()

    def end(self, error: str = "") -> None:
        """It is not any more; `error` is the sentence of its failure."""
        self._row.busy_since = 0.0
        self._row.done += 1
        if error:
            self._row.failed += 1
            self._board.last_error = error

    def _run(self) -> None:
        while True:
            received = signal.sigtimedwait(_SIGNALS, _BEAT_S)
            self._row.beat = now()
            if received and (self._board.leaving or received.si_pid == self._parent):
                # From the parent it means what it says. Python would tell the main thread, which may be in a long wait.
                os.kill(os.getpid(), signal.SIGKILL)
