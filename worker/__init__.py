"""A message-queue consumer worker for multi-person pose estimation.

``celery -A worker worker`` finds the Celery app through the attribute ``celery``; it is made on first use,
so that ``import worker.client`` stays free of everything a worker needs.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "celery":
        from worker.app import app
        from worker.errors import SettingsError
        from worker.settings import settings

        try:
            settings()
        except SettingsError as exc:  # Celery, which reads them later, would show a traceback
            from worker.logs import last_words

            last_words(str(exc))
            raise SystemExit(1) from exc
        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
