"""How attempts end, made up for tests of those who hear of it."""

from __future__ import annotations

import time
from typing import Any

from worker.jobs.attempt import AttemptEnd
from worker.jobs.ledger import Message


def ended(kind: str, *, image: str = "/a.jpg", **more: Any) -> AttemptEnd:
    """The end of an attempt at job 1; `more` as in AttemptEnd."""
    fields = {"attempt": 1, "error": None, "result": {}, "seconds": 0.03, "ended_at": time.time(), **more}
    return AttemptEnd(job_id="1", message=Message("pose", kwargs={"image": image}), kind=kind, **fields)
