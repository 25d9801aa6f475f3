"""Celery with its defaults and a task that does nothing: what the queue alone can do."""

from __future__ import annotations

import os

from celery import Celery


def noop_app(url: str) -> Celery:
    """The app on the Redis at `url`; its only task is ``noop``."""
    made = Celery("noop", broker=url, backend=url, set_as_current=False)
    made.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])

    @made.task(name="noop", shared=False)
    def noop() -> None:
        """Nothing."""

    return made


#: For ``celery --app benchmarks.noop``.
app = noop_app(os.environ.get("NOOP_URL", ""))
