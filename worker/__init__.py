"""A message-queue consumer worker for multi-person pose estimation.

``celery -A worker worker`` finds the Celery app through the attribute ``celery``; it is made on first use,
so that ``import worker.client`` stays free of everything a worker needs.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "celery":
        from worker.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
