"""A job in work, as Celery's parent sees it: when its slot is lost or ended, the message goes back.

Celery takes the class from the task's attribute ``Request``.
Tests: a_slot_that_dies_is_replaced_and_its_job_redone, what_is_not_done_within_the_grace_goes_back_to_the_queue.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Dict

import redis
from billiard.exceptions import WorkerLostError
from celery.worker import request, state
from celery.worker.state import task_ready

from worker.errors import PermanentError
from worker.jobs.attempt import Holding
from worker.jobs.ledger import ENDED, Message

logger = logging.getLogger(__name__)


class Request(request.Request):
    """As Celery's; what became of the attempt is noted in the job's record."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The job has failed, or its slot is gone."""
        exc = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it to carry its traceback
        if not isinstance(exc, (WorkerLostError, SystemExit, KeyboardInterrupt)):
            super().on_failure(exc_info, send_failed_event, return_ok)
            return
        task_ready(self)
        if not (self._already_revoked or self._already_cancelled or state.should_terminate):
            why, error = self.app.parent.killed.pop(self.worker_pid, (f"its slot was lost ({exc})", None))
            logger.error("✗ Job %s: %s.", self.id, why)
            if error is not None:
                self._end(error)
            elif self._release(why, counts=True) in ENDED:
                self.acknowledge()
            else:
                self.reject(requeue=True)
        # Else it was this worker that ended the slot; the message is not acknowledged, and comes back by itself.

    def _end(self, error: PermanentError) -> None:
        """Have the job end in `error`, in place of its slot, which was killed before it could say so."""
        self.app.backend.mark_as_failure(self.id, error, request=self._context)
        with contextlib.suppress(redis.RedisError):
            self.app.pending.ring(self.id)
        self.acknowledge()

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """The worker stops before the job is done; that is not the job's fault, and costs it no attempt."""
        self._release("its worker stopped", counts=False)
        super().cancel(pool, signal, emit_retry)

    def _release(self, why: str, *, counts: bool) -> str:
        try:
            return str(self.app.ledger.release(*holding(self._context, self.app.incarnation), why, counts=counts))
        except redis.RedisError:
            return "unknown"  # a reconciler will find that nobody holds it any more


def holding(context: Any, incarnation: str) -> Holding:
    """What tells an attempt from others, by Celery's context of its message; in the slot as in its parent.

    Args:
        incarnation: tells this worker from the one of its name that was killed before it: Redis may give both the
            same message.
    """
    properties = context.properties if isinstance(context.properties, dict) else {}
    return Holding(context.id, f"{context.hostname} {incarnation} {properties.get('delivery_tag', '')}")


def message_of(context: Any, default_queue: str) -> Message:
    """What would have to be sent if the message of Celery's `context` got lost."""
    delivery: Dict[str, Any] = context.delivery_info or {}
    return Message(
        queue=str(delivery.get("routing_key") or default_queue),
        args=list(context.args or ()),
        kwargs=dict(context.kwargs or {}),
        priority=int(delivery.get("priority") or 0),
        expires=str(context.expires) if context.expires else None,
        headers=dict(context.headers or {}),
        task=context.task,
    )
