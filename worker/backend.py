"""Celery's Redis result backend, without tracebacks for failures that say everything in one sentence."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend

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
