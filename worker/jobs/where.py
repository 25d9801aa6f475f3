"""Where a job is on its way, as its record says."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Optional, Sequence

from worker.servers import queue_of


class Where(NamedTuple):
    """What a job's record says of it. Times are Unix times in seconds.

    Attributes:
        state: as in worker.jobs.ledger; empty if there is no record.
        before: how many jobs wait before it in the ledger's order, if it waits.
        worker: which has begun the last attempt.
        why: how the last attempt has ended, unless it is in work.
        due: when the next attempt is due, if one is.
        served: whether a worker takes jobs from `queue`.
        step, parts, parts_since: of a film, what is done in its parts, how many there are, and since when.
        ended_parts, ended_before, failed_parts: how many of them have ended, had ended before that, and have failed.
        frames: of all parts together.
        now: the ledger's time.
    """

    state: str
    queue: str
    sent: Optional[float]
    ended: Optional[float]
    attempts: int
    begun: Optional[float]
    worker: str
    why: str
    due: Optional[float]
    before: Optional[int]
    served: bool
    step: str
    parts: int
    ended_parts: int
    ended_before: int
    failed_parts: int
    parts_since: Optional[float]
    frames: int
    now: float

    @classmethod
    def of(cls, fields: Sequence[str]) -> Where:
        """From what ``where.lua`` gives; strangers may have written it."""
        state, list_, sent, ended, attempts, attempt, end, due, before, served = fields[:10]
        step, parts, parts_ended, parts_before, parts_failed, since, frames, now = fields[10:]
        begun, _, where = attempt.partition(" ")
        return cls(
            state=state,
            queue=queue_of(list_),
            sent=_number(sent),
            ended=_number(ended),
            attempts=int(_number(attempts) or 0),
            begun=_number(begun),
            worker=str(_object(where).get("worker", "")),
            why=end.partition(" ")[2],
            due=_number(due),
            before=int(before) if before.isdigit() else None,
            served=served == "1",
            step=step,
            parts=int(_number(parts) or 0),
            ended_parts=int(_number(parts_ended) or 0),
            ended_before=int(_number(parts_before) or 0),
            failed_parts=int(_number(parts_failed) or 0),
            parts_since=_number(since),
            frames=int(_number(frames) or 0),
            now=_number(now) or 0.0,
        )


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


def _object(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
