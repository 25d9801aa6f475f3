"""Celery's consumer, which lets no message through unlooked at, and goes on whatever one of them does to it."""

from __future__ import annotations

import json
from typing import Any, Callable, List

import redis
from celery.utils.log import get_logger
from celery.worker.consumer import consumer

from worker.broker import gate
from worker.broker.embedded import promised
from worker.broker.envelope import NO_MESSAGE, in_words
from worker.broker.protocol import as_protocol_2
from worker.errors import InvalidRequest
from worker.jobs.message_id import job_id_in
from worker.servers import dead_queue, is_redis, said
from worker.settings import settings

logger = get_logger(__name__)


class Consumer(consumer.Consumer):
    """As Celery's; what is no job of ours is refused: kept, logged, and ended under its id, unless that is another's.

    Celery finds the class by the setting ``worker_consumer``.
    Test: each_ends_typed_or_is_kept_and_the_worker_goes_on.
    """

    def connect(self) -> Any:
        """A connection; on RabbitMQ, with a queue for messages that cannot be delivered.

        Redis has none: there, attempts are counted by the worker alone.
        """
        connection = super().connect()
        if not is_redis(settings().broker_url or "redis://"):
            for name in settings().consumed:
                dead_queue(name)(connection.default_channel).declare()
        return connection

    def create_task_handler(self, **kwargs: Any) -> Callable[[Any], None]:
        """What each message is given to."""
        handle = super().create_task_handler(**kwargs)

        def on_message(message: Any) -> None:
            try:
                gate.check(message, settings().max_message_bytes, settings().callback_queues)
                handle(message)
            except InvalidRequest as exc:
                self._refuse(message, str(exc))
            except (*self.connection_errors, *self.channel_errors):  # Celery makes the connection anew
                raise
            except Exception as exc:
                logger.exception("✗ A message made the worker stumble.")
                self._refuse(message, f"The message cannot be worked on ({type(exc).__name__}); see the worker's log.")

        return on_message

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """It is of no protocol that Celery knows."""
        self._refuse(message, "The message is of no protocol that is known; send what docs/message.md says.")

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """It is of another task."""
        self._refuse(message, "The task is not known here.")

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """Its headers say what cannot be, such as a deadline that is no time."""
        self._refuse(message, f"The message is wrong: {exc}; send what docs/message.md says.")

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """Its body cannot be read; it may also be a command to all workers, of which nothing is kept."""
        self._refuse(message, f"The message cannot be read: {in_words(exc)}; send plain JSON.")

    def _refuse(self, message: Any, why: str) -> None:
        queue = str((message.delivery_info or {}).get("routing_key"))
        job_id = job_id_in(message.headers, message.body, message.properties)
        size = message.headers.get("bytes") if message.content_type == NO_MESSAGE else None
        size = size if isinstance(size, int) else None  # strangers can write that, too
        logger.error("✗ A message on %r was refused: %s See: python -m worker refused list", queue, why)
        try:
            self.app.refused.add(why, message.body, queue=queue, job_id=job_id, size=size)
            for waited_for in [*([job_id] if job_id is not None else []), *_promised(message.body)]:
                self.app.backend.refuse(waited_for, InvalidRequest(why))
        except redis.RedisError as exc:
            logger.error("✗ The refused message could not be kept (%s); it goes back.", said(exc))
            message.reject_log_error(logger, self.connection_errors, requeue=True)
        else:
            message.reject_log_error(logger, self.connection_errors)


def _promised(body: Any) -> List[str]:
    """The ids of what would have followed upon a job whose message is refused."""
    try:
        _, parts = as_protocol_2({}, json.loads(body or b""))
    except (ValueError, RecursionError):
        return []
    return promised(parts[2]) if isinstance(parts, list) and len(parts) == 3 else []
