"""Celery's consumer, which lets no message through unlooked at, and goes on whatever one of them does to it."""

from __future__ import annotations

from typing import Any, Callable

import redis
from celery.utils.log import get_logger
from celery.worker.consumer import consumer

from worker.broker import gate as intake
from worker.broker.refused import refuse
from worker.errors import InvalidRequest
from worker.servers import said
from worker.settings import settings

logger = get_logger(__name__)


class Consumer(consumer.Consumer):
    """As Celery's; what is no job of ours is refused, kept and told of. See :mod:`worker.broker.gate`."""

    def create_task_handler(self, **kwargs: Any) -> Callable[[Any], None]:
        """What each message is given to."""
        handle = super().create_task_handler(**kwargs)

        def on_message(message: Any) -> None:
            try:
                intake.check(message, settings().max_message_bytes)
                handle(message)
            except InvalidRequest as exc:
                self._refuse(message, str(exc))
            except self._broken as exc:  # the connection, which Celery makes anew
                raise exc
            except Exception as exc:
                logger.exception("✗ A message made the worker stumble.")
                self._refuse(message, f"The message cannot be worked on ({type(exc).__name__}); see the worker's log.")

        return on_message

    @property
    def _broken(self) -> Any:
        return (*self.connection_errors, *self.channel_errors)

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
        self._refuse(message, f"The message cannot be read: {intake.told(exc)}; send plain JSON.")

    def _refuse(self, message: Any, why: str) -> None:
        queue, job_id = str((message.delivery_info or {}).get("routing_key")), intake.job_id_of(message)
        try:
            refuse(why, message.body, queue=queue, backend=self.app.backend, job_id=job_id)
        except redis.RedisError as exc:
            logger.error("✗ The refused message could not be kept (%s); it goes back.", said(exc))
            message.reject_log_error(logger, self.connection_errors, requeue=True)
        else:
            message.reject_log_error(logger, self.connection_errors)
