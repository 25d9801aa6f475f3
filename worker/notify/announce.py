"""Who wants to know of a job's end is noted before its work begins, and told by the notifier when it has ended."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, Mapping, Optional

import redis
from celery import Celery, bootsteps, signals
from celery.utils.log import get_logger
from kombu import Exchange, Queue

from worker.contract import parse_job
from worker.errors import InvalidRequest
from worker.jobs.attempt import outlast
from worker.notify.notifier import Notifier
from worker.notify.pending import Outbox
from worker.servers import DEFAULT_URL, connect
from worker.settings import settings

logger = get_logger(__name__)

#: Seconds within which Redis must answer.
_TIMEOUT_S = 5.0


def new_outbox() -> Outbox:
    """An outbox with a connection of its own."""
    url = settings().results_url or DEFAULT_URL
    return Outbox(connect(url, _TIMEOUT_S), settings().key_prefix)


@lru_cache(maxsize=1)
def outbox() -> Outbox:
    """This process's outbox."""
    return new_outbox()


def note(job_id: str, message: Mapping[str, Any]) -> None:
    """In the slot, before any work: note whom `message` wants to be told, also if the rest of it is wrong."""
    if _wants(message):
        try:
            job = parse_job("-", {}, webhook=message.get("webhook"), callback=message.get("callback"))
        except InvalidRequest:
            return  # which the job ends with, in a moment
        webhook = job.webhook if settings().webhook_secret else None
        callback = job.callback.model_dump() if job.callback else None
        if webhook or callback:
            outlast(lambda: outbox().add(job_id, webhook, callback))


def _wants(message: Any) -> bool:
    return isinstance(message, dict) and bool(message.get("webhook") or message.get("callback"))


def _ring(job_id: str) -> None:
    try:
        outbox().ring(job_id)
    except redis.RedisError as exc:  # the notifier looks again by itself
        logger.debug("The notifier is not told of job %s: %s", job_id, exc)


@signals.task_postrun.connect
def job_ends(task: Any, **_: Any) -> None:
    """In the slot: the outcome is stored."""
    if _wants(task.request.kwargs):
        _ring(task.request.id)


@signals.task_revoked.connect
def job_revoked(request: Any, **_: Any) -> None:
    """In the parent: the job was not done, because it was cancelled or came too late."""
    _ring(request.id)


class Announce(bootsteps.StartStopStep):
    """Runs the notifier while the worker consumes."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._notifier: Optional[Notifier] = None

    def start(self, worker: Any) -> None:
        """Begin."""
        backend = worker.app.backend

        def outcome(job_id: str) -> Dict[str, Any]:
            text = backend.client.get(backend.get_key_for_task(job_id))
            meta: Dict[str, Any] = backend.decode(text) if text else {}
            return meta

        self._notifier = Notifier(new_outbox(), settings(), outcome, _sender(worker.app))
        self._notifier.start()

    def stop(self, worker: Any) -> None:
        """Leave the rest to other workers."""
        if self._notifier is not None:
            self._notifier.stop()

    terminate = stop


def _sender(app: Celery) -> Any:
    def send(name: str, queue: str, told: Mapping[str, Any], task_id: str) -> None:
        # Declared by its own consumers, in whichever way they want it.
        there = Queue(queue, Exchange(""), routing_key=queue, no_declare=True)
        app.send_task(name, args=[told], queue=there, task_id=task_id, ignore_result=True, retry=False)

    return send
