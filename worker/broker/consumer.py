"""Celery's consumer, which lets no message through unlooked at, and goes on whatever one of them does to it."""

from __future__ import annotations

from typing import Any, Callable

import redis
from celery.utils.log import get_logger
from celery.worker.consumer import consumer

from worker.broker import gate
from worker.broker.envelope import NO_MESSAGE, in_words, job_id_in
from worker.errors import InvalidRequest
from worker.servers import dead_queue, is_redis, said
from worker.settings import settings

logger = get_logger(__name__)


class Consumer(consumer.Consumer):
    """As Celery's; what is no job of ours is refused: kept, logged, and ended under its id unless that is another's.

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
        self._refuse(message, "The message is of no protocol that is known; send Celery's protocol 2.")

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
        queue, job_id = str((message.delivery_info or {}).get("routing_key")), job_id_in(message.headers)
        size = message.headers.get("bytes") if message.content_type == NO_MESSAGE else None
        size = size if isinstance(size, int) else None  # strangers can write that, too
        logger.error("✗ A message on %r was refused: %s See: python -m worker refused list", queue, why)
        try:
            self.app.refused.add(why, message.body, queue=queue, job_id=job_id, size=size)
            # A record means that a proper message of this id was or will be there; a stranger's must not end that job.
            if job_id is not None and self.app.ledger.state(job_id) is None:
                self.app.backend.mark_as_failure(job_id, InvalidRequest(why))
        except redis.RedisError as exc:
            logger.error("✗ The refused message could not be kept (%s); it goes back.", said(exc))
            message.reject_log_error(logger, self.connection_errors, requeue=True)
        else:
            message.reject_log_error(logger, self.connection_errors)
