"""What was found in a film's frames, as it is kept: JSON Lines, gzip, a line a frame.

``{"frame": 12, "time_s": 0.48, "people": [{"id": 3, "score": 0.81, "keypoints": [[x, y, confidence], null, …]}]}``; the
ids are there once the segments have been joined. The same people give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, NoReturn, Optional, Tuple

import numpy as np

from worker.people import rounded, rounded_score
from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import PARTS

#: Most characters of a line: a thousand people with hands and face.
_MOST_LINE = 1 << 23
#: gzip's: the fastest that is small enough; the next ones win a tenth for twice the time.
_LEVEL = 4
#: Most bytes of all lines: a million frames of thirty people.
MOST_BYTES = 1 << 34
#: Greatest number of a frame or of a person, and greatest score, coordinate or confidence: beyond it nothing is drawn.
_MOST_NUMBER, _MOST_VALUE = 1 << 53, 1e6
#: What reading something else ends in; zlib's error is of no family.
_NO_LINES = (
    *(OSError, EOFError, zlib.error, ValueError, TypeError, LookupError, AttributeError),
    *(RecursionError, OverflowError),
)


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
        # As people stand in a result; made without its checks, which would take most of the time.
        people: List[Dict[str, Any]] = [
            {
                "score": rounded_score(score),
                "keypoints": rounded(joints),
                **{part: rounded(of_all[number]) for part, of_all in found.people.parts.items()},
            }
            for number, (joints, score) in enumerate(zip(found.people.keypoints, found.people.scores))
        ]
        if found.ids is not None:
            people = [{"id": one, **person} for one, person in zip(found.ids.tolist(), people)]
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


def loads(data: bytes, skeleton: Skeleton, most_bytes: int = MOST_BYTES) -> Iterator[FrameFound]:
    """The frames in what was kept, one by one.

    Args:
        most_bytes: of all lines together, unpacked.

    Raises:
        ValueError: it is no such thing, not of this skeleton, more than that, or its frames are out of order.
    """
    left, number, time_s = most_bytes, -1, -math.inf
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while line := file.readline(_MOST_LINE):
                left -= len(line)
                if left < 0:
                    raise ValueError(f"they are more than {most_bytes} bytes")
                found = _frame(json.loads(line, parse_constant=_refuse), skeleton)
                if found.number <= number or found.time_s <= time_s:
                    raise ValueError(f"frame {found.number} is out of order")
                number, time_s = found.number, found.time_s
                yield found
    except _NO_LINES as exc:
        raise ValueError(f"these are no lines of a film's people ({exc})") from exc


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _frame(line: Any, skeleton: Skeleton) -> FrameFound:
    number, time_s, people = line["frame"], line["time_s"], line["people"]
    if type(number) is not int or not 0 <= number < _MOST_NUMBER or type(people) is not list:
        raise ValueError("a line has a frame's number and its people")
    if type(time_s) not in (int, float) or not math.isfinite(time_s):
        raise ValueError("a line has a frame's time")
    keypoints = _joints([person["keypoints"] for person in people], len(skeleton.keypoints))
    parts = {
        name: _joints([person.get(name) or [None] * len(of.keypoints) for person in people], len(of.keypoints))
        for name, (_, of) in PARTS.items()
        if any(name in person for person in people)
    }
    scores = _numbers([person["score"] for person in people], (len(people),))
    return FrameFound(number, time_s, People(keypoints=keypoints, scores=scores, parts=parts), _ids(people))


def _ids(people: List[Any]) -> Optional[np.ndarray]:
    if not any("id" in person for person in people):
        return np.zeros(0, np.int64) if not people else None
    ids = [person["id"] for person in people]
    if not all(type(one) is int and 0 <= one < _MOST_NUMBER for one in ids) or len(set(ids)) < len(ids):
        raise ValueError("ids are whole numbers, each of one person")
    return np.array(ids, np.int64)


def _joints(rows: List[Any], count: int) -> np.ndarray:
    missing = (np.nan, np.nan, 0.0)
    filled = [[missing if joint is None else joint for joint in row] for row in rows]
    joints = _numbers(filled, (len(rows), count, 3))
    if (joints[..., 2] < 0).any():
        raise ValueError("a confidence is negative")
    joints[joints[..., 2] == 0] = missing
    return joints


def _numbers(values: List[Any], shape: Tuple[int, ...]) -> np.ndarray:
    """float32 of this shape; NaN is let through, which JSON cannot say."""
    if not values:
        return np.zeros(shape, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy before 1.24 warns of ragged rows, and gives what is refused here
        numbers = np.array(values)
    if numbers.shape != shape or numbers.dtype.kind not in "if" or (np.abs(numbers) > _MOST_VALUE).any():
        raise ValueError(f"expected {' x '.join(map(str, shape))} numbers of at most {_MOST_VALUE:g}")
    return numbers.astype(np.float32)
