"""The log: one line an event, for people or (POSE_LOG=json) one JSON object a line. Only bugs have a traceback."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, Dict

from worker.files import printable

#: Where Celery writes of each job; our own line has more in it.
_CELERYS = ("celery.app.trace", "celery.worker.strategy")
#: Where others write of what is no bug of ours: the broker is away, a message is none, a member of a chord has failed.
#: A traceback adds nothing to that.
_OTHERS = (
    *("celery.worker.consumer.consumer", "celery.worker.consumer.connection", "celery.backends.redis"),
    "opentelemetry",
)
_LONGEST = 1000


class Line(logging.Formatter):
    """For people."""

    default_time_format = "%Y-%m-%d %H:%M:%S"
    default_msec_format = "%s,%03d"

    def __init__(self) -> None:
        super().__init__("[%(asctime)s: %(levelname)s/%(processName)s] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = _one_line(record.message)
        return super().formatMessage(record)


class JsonLine(logging.Formatter):
    """For machines: ``time``, ``level``, ``logger``, ``process``, ``worker``, ``message``; of a job more.

    Args:
        worker: its name, or what else the process is.
    """

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object in one line."""
        fields: Dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.processName,
            "worker": self._worker,
            "message": _one_line(record.getMessage()),
            **getattr(record, "job", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class Sieve(logging.Filter):
    """Keeps out what our own lines say better, and takes tracebacks from what is nobody's bug."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name in _CELERYS and hasattr(record, "data") and record.levelno < logging.CRITICAL:
            return False
        if record.name.startswith(_OTHERS):
            record.exc_info = record.exc_text = None
            # Celery writes "(3/None)": the third try of how many; the number of tries has no limit here.
            record.msg, record.args = record.getMessage().replace("/None)", ")"), ()
        return True


def formatter(worker: str) -> logging.Formatter:
    """What POSE_LOG asks for; read here as it is, since wrong settings are logged, too."""
    return JsonLine(worker) if os.environ.get("POSE_LOG") == "json" else Line()


def dress(log: logging.Logger, worker: str) -> None:
    """Have the handlers of `log` write our lines."""
    for handler in log.handlers:
        handler.setFormatter(formatter(worker))
        handler.addFilter(Sieve())


def begin(worker: str) -> None:
    """Set up the log of a process that is not Celery's."""
    logging.basicConfig(level=logging.INFO)
    dress(logging.getLogger(), worker)


def last_words(sentence: str, worker: str = "") -> None:
    """Say why the process ends, in the last line that it writes."""
    if os.environ.get("POSE_LOG") == "json":
        record = logging.LogRecord("worker", logging.CRITICAL, "", 0, sentence, None, None)
        sys.stderr.write(JsonLine(worker).format(record) + "\n")
    else:
        sys.stderr.write(f"pose worker: {sentence}\n")
    sys.stderr.flush()


def _one_line(text: str) -> str:
    """`text` with nothing in it that could pass for another line."""
    line = printable(" ".join(part for part in text.split("\n") if part.strip()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
