"""A film's job, as its client reads it: how far it is, and what was found in its frames."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any, Dict, Iterator, List, NamedTuple

from worker.errors import JobFailed
from worker.jobs.where import Where
from worker.video_contract import Progress

#: Most bytes of a frame's line: a thousand people with hands and face take a third of it.
_MOST_LINE = 1 << 23
#: What is done in the segments of each step, and once they have all ended.
_AFTER = {"look": "join", "draw": "put together"}
_ENDED = ("done", "failed", "dead", "revoked")


class Frame(NamedTuple):
    """One frame that was looked at.

    Attributes:
        number: the frame's in the film, from 0.
        time_s: seconds from the film's first frame.
        people: each with ``score``, ``keypoints`` and, unless the job's `track` is off, ``id``; see docs/message.md.
    """

    number: int
    time_s: float
    people: List[Dict[str, Any]]


def frames_of(job_id: str, data: bytes) -> Iterator[Frame]:
    """The frames in what a film's job has kept, one by one: a long film's take no more memory than a short one's.

    Raises:
        JobFailed: it cannot be read.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while line := file.readline(_MOST_LINE):
                found = json.loads(line)
                yield Frame(int(found["frame"]), float(found["time_s"]), list(found["people"]))
    except (OSError, EOFError, ValueError, TypeError, LookupError, RecursionError, OverflowError) as exc:
        raise JobFailed(
            f"The keypoints of job {job_id} cannot be read ({exc}); see who can write to the store."
        ) from exc


def progress_of(where: Where) -> Progress:
    """How far a film is, by its record."""
    if where.state in _ENDED:
        return Progress(phase="ended", frames=where.frames)
    if where.state != "parts":
        begun = where.state in ("running", "later")
        phase = _AFTER.get(where.step) or ("plan" if begun else "waiting")
        return Progress(phase=phase, frames=where.frames)
    parts, ended, since_before = where.parts, where.ended_parts, where.ended_parts - where.ended_before
    seconds = where.now - where.parts_since if where.parts_since is not None else 0.0
    known = parts > 0 and since_before > 0 and seconds > 0
    return Progress(
        phase=where.step,
        done=ended,
        segments=parts,
        frames=where.frames,
        frames_per_s=where.frames * since_before / parts / seconds if known else None,
        eta_s=max(0, parts - ended) * seconds / since_before if known else None,
    )


__all__ = ["Frame", "frames_of", "progress_of"]
