"""A log as Celery sets one up, and what was written to it."""

from __future__ import annotations

import io
import logging
from typing import Any, List

from worker import logs


class Log:
    """A root logger as Celery sets one up, and what was written to it."""

    def __init__(self, worker: str) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.logger = logging.Logger("root")
        self.logger.addHandler(self.handler)
        logs.dress(self.logger, worker)

    def handle(self, name: str, level: int, message: str, *args: Any, **kwargs: Any) -> List[str]:
        record = logging.Logger(name).makeRecord(name, level, "", 0, message, args, kwargs.get("exc_info"))
        record.__dict__.update(kwargs.get("extra", {}))
        self.logger.handle(record)
        return self.stream.getvalue().splitlines()

    @property
    def lines(self) -> List[str]:
        """What was written."""
        return self.stream.getvalue().splitlines()
