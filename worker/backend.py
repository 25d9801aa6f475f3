"""Celery's Redis result backend, as the workers and as the clients use it."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend

from worker.errors import PoseError


class ResultBackend(RedisBackend):
    """Stores a :class:`PoseError` by its type and its sentence; anything else with its traceback."""

    def mark_as_failure(
        self, task_id: str, exc: BaseException, traceback: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Store the failure `exc` of job `task_id`."""
        kept = None if isinstance(exc, PoseError) else traceback
        return super().mark_as_failure(task_id, exc, kept, *args, **kwargs)

    def mark_as_retry(self, task_id: str, exc: BaseException, traceback: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Store that job `task_id` will be tried again because of `exc`."""
        kept = None if isinstance(exc, PoseError) else traceback
        return super().mark_as_retry(task_id, exc, kept, *args, **kwargs)


class ClientBackend(RedisBackend):
    """Listens for a result only while somebody waits for it.

    Celery's own subscribes to every job at submission, which costs a round trip and memory for each, also for jobs
    whose results are collected in batches.
    """

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: see the class."""

    _closed = False

    def close(self) -> None:
        """Close the connections, for good."""
        self._closed = True
        if "client" in vars(self):  # Celery opens it at its first use
            self.result_consumer.stop()
            self.client.connection_pool.disconnect()

    def on_result_fulfilled(self, result: Any) -> None:
        """Stop listening; a result that is thrown away after the client was closed must not connect again."""
        if not self._closed:
            super().on_result_fulfilled(result)


class SentinelResultBackend(ResultBackend, SentinelBackend):
    """The same behind Sentinel."""


class SentinelClientBackend(ClientBackend, SentinelBackend):
    """The same behind Sentinel."""
