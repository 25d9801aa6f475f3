"""Celery with its defaults and a task that does nothing: what the queue alone can do."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("noop", broker=os.environ["NOOP_URL"], backend=os.environ["NOOP_URL"])
app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])


@app.task(name="noop")
def noop() -> None:
    """Nothing."""
