"""What was found in a film's frames, as it is kept: JSON Lines, gzip, a line a frame.

``{"frame": 12, "time_s": 0.48, "people": [{"id": 3, "score": 0.81, "keypoints": [[x, y, confidence], null, …]}]}``; the
ids are there once the segments have been joined. The same people give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import math
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, Optional

import numpy as np

from worker.people import from_people
from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import PARTS

#: Most characters of a line: a thousand people with hands and face.
_MOST_LINE = 1 << 23
#: gzip's: the fastest that is small enough; the next ones win a tenth for twice the time.
_LEVEL = 4


@dataclass(frozen=True)
class FrameFound:
    """The people of one frame.

    Attributes:
        number: the frame's in the film, from 0.
        time_s: seconds from the film's first frame.
        ids: int64 (n,), one for each person; None where nobody was followed.
    """

    number: int
    time_s: float
    people: People
    ids: Optional[np.ndarray] = None


class Lines:
    """Lines that are written one by one."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._file = gzip.GzipFile(fileobj=self._bytes, mode="wb", compresslevel=_LEVEL, mtime=0)

    def add(self, found: FrameFound) -> None:
        """Write the line of a frame."""
        people: List[Dict[str, Any]] = [person.model_dump() for person in from_people(found.people)]
        if found.ids is not None:
            people = [{"id": int(one), **person} for one, person in zip(found.ids, people)]
        line = {"frame": found.number, "time_s": round(found.time_s, 6), "people": people}
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> bytes:
        """All of them, as they are kept."""
        self._file.close()
        return self._bytes.getvalue()


def dumps(frames: Iterable[FrameFound]) -> bytes:
    """The lines of `frames`, as they are kept."""
    lines = Lines()
    for found in frames:
        lines.add(found)
    return lines.close()


def loads(data: bytes, skeleton: Skeleton) -> Iterator[FrameFound]:
    """The frames in what was kept, one by one.

    Raises:
        ValueError: it is no such thing, or not of this skeleton.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while line := file.readline(_MOST_LINE):
                yield _frame(json.loads(line), skeleton)
    except (OSError, EOFError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as exc:
        raise ValueError(f"these are no lines of a film's people ({exc})") from exc


def _frame(line: Any, skeleton: Skeleton) -> FrameFound:
    number, time_s, people = line["frame"], line["time_s"], line["people"]
    if type(number) is not int or number < 0 or not math.isfinite(time_s) or type(people) is not list:
        raise ValueError("a line has a frame's number, its time and its people")
    keypoints = _joints([person["keypoints"] for person in people], len(skeleton.keypoints))
    parts = {
        name: _joints([person.get(name) or [None] * len(of.keypoints) for person in people], len(of.keypoints))
        for name, (_, of) in PARTS.items()
        if any(name in person for person in people)
    }
    ids = np.array([person["id"] for person in people], np.int64) if all("id" in person for person in people) else None
    scores = np.array([person["score"] for person in people], np.float32)
    return FrameFound(number, time_s, People(keypoints=keypoints, scores=scores, parts=parts), ids)


def _joints(rows: List[Any], count: int) -> np.ndarray:
    missing = (np.nan, np.nan, 0.0)
    return np.array([[joint or missing for joint in row] for row in rows], np.float32).reshape(len(rows), count, 3)
