"""What the worker's parent does with a job whose slot was lost or killed: it goes back, and the attempt is noted."""

from __future__ import annotations

import logging
from typing import Any

import redis
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import request, state
from celery.worker.state import task_ready

from worker.jobs.attempt import Holding, ledger
from worker.jobs.ledger import ENDED

logger = logging.getLogger(__name__)


class Request(request.Request):
    """A job in work, seen from the parent."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The job has reached a time limit; at the hard one, its slot is killed."""
        if soft:
            super().on_timeout(soft, timeout)
        else:
            task_ready(self)
            self._give_back(f"its slot was killed after {timeout:g} s, the hard time limit")

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The job has failed, or its slot is gone."""
        exc = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it to carry its traceback
        if isinstance(exc, TimeLimitExceeded):
            return  # on_timeout follows at once, and decides
        if not isinstance(exc, (WorkerLostError, SystemExit, KeyboardInterrupt)):
            super().on_failure(exc_info, send_failed_event, return_ok)
            return
        task_ready(self)
        if not (self._already_revoked or self._already_cancelled or state.should_terminate):
            self._give_back(f"its slot was lost ({exc})")
        # Else it was this worker that ended the slot; the message is not acknowledged, and comes back by itself.

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """The worker stops before the job is done; that is not the job's fault, and costs it no attempt."""
        self._release("its worker stopped", counts=False)
        super().cancel(pool, signal, emit_retry)

    def _give_back(self, what: str) -> None:
        """Put the message back on the queue, unless the job had ended already."""
        logger.error("✗ Job %s: %s.", self.id, what)
        if self._release(what, counts=True) in ENDED:
            self.acknowledge()
        else:
            self.reject(requeue=True)

    def _release(self, what: str, *, counts: bool) -> str:
        try:
            return ledger().release(*Holding.of(self._context), what, counts=counts)
        except redis.RedisError:
            return "unknown"  # a reconciler will find that nobody holds it any more
