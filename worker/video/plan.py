"""Which frames of a film are looked at, and how they are cut into segments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from worker.errors import InvalidRequest
from worker.video.film import Film

#: Frames of a segment, at most; its message then has fewer than 8 KB.
MAX_FRAMES_PER_SEGMENT = 200
FRAMES_PER_SEGMENT = 100
#: Key frames that a segment names, the nearest first: the next is begun at where one does not lead to its first frame,
#: as in films that are refreshed bit by bit (x264's intra-refresh).
_STARTS = 3


@dataclass(frozen=True)
class Segment:
    """A part of a film that is worked on by itself.

    Attributes:
        number: its place among the film's segments, from 0.
        first: the number in the film of its first frame, from 0.
        every: what frames' numbers differ by.
        starts: time stamps of key frames to begin decoding at, the nearest first; none: at the film's beginning.
        pts: time stamps of its frames, ascending, in units of the film's own.
        times_s: their times in seconds from the film's first frame, rounded to 6 decimals.
    """

    number: int
    first: int
    every: int
    starts: Tuple[int, ...]
    pts: Tuple[int, ...]
    times_s: Tuple[float, ...]

    def frame_number(self, place: int) -> int:
        """The number in the film of the frame at `place` in this segment."""
        return self.first + place * self.every

    def to_message(self) -> Dict[str, Any]:
        """As JSON has it."""
        lists = {"starts": list(self.starts), "pts": list(self.pts), "times_s": list(self.times_s)}
        return {"number": self.number, "first": self.first, "every": self.every, **lists}

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Segment:
        """The segment in a message.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(message, Mapping) or set(message) != set(cls.__dataclass_fields__):
            raise ValueError(f"a segment has the fields {', '.join(cls.__dataclass_fields__)}")
        for name, least in (("number", 0), ("first", 0), ("every", 1)):
            if type(message[name]) is not int or not least <= message[name] < 1 << 53:
                raise ValueError(f"a segment's {name} must be a whole number of at least {least}")
        starts, pts, times = (_listed(message, name) for name in ("starts", "pts", "times_s"))
        if not 1 <= len(pts) <= MAX_FRAMES_PER_SEGMENT or len(times) != len(pts) or len(starts) > _STARTS:
            raise ValueError(f"a segment has 1 to {MAX_FRAMES_PER_SEGMENT} frames, and a time for each")
        if not all(type(stamp) is int and abs(stamp) < 1 << 53 for stamp in (*pts, *starts)):
            raise ValueError("a segment's time stamps must be whole numbers")
        if not all(type(time) in (int, float) and math.isfinite(time) and time >= 0 for time in times):
            raise ValueError("a segment's times must be seconds from the film's first frame")
        if any(b <= a for a, b in zip(pts, pts[1:])) or any(b < a for a, b in zip(times, times[1:])):
            raise ValueError("a segment's frames must be in the order of time")
        if any(b >= a for a, b in zip((pts[0] + 1, *starts), starts)):
            raise ValueError("a segment must begin at key frames before its first frame, the nearest first")
        head = (message["number"], message["first"], message["every"])
        return cls(*head, tuple(starts), tuple(pts), tuple(float(time) for time in times))


def plan(
    film: Film,
    *,
    every: int = 1,
    start_s: Optional[float] = None,
    end_s: Optional[float] = None,
    max_frames: Optional[int] = None,
    frames_per_segment: int = FRAMES_PER_SEGMENT,
) -> List[Segment]:
    """The segments of a film: frames with ``start_s <= time < end_s``, of these every n-th, of these `max_frames`.

    An `every` beyond the film's length leaves its first frame.

    Raises:
        InvalidRequest: no frame is left.
        ValueError: `every`, `max_frames` or `frames_per_segment` is out of range.
    """
    if (
        every < 1
        or not 1 <= frames_per_segment <= MAX_FRAMES_PER_SEGMENT
        or (max_frames is not None and max_frames < 1)
    ):
        raise ValueError("every, max_frames and frames_per_segment must be at least 1")
    times = np.round(film.times_s, 6)
    from_ = 0 if start_s is None else int(np.searchsorted(times, start_s, side="left"))
    to = film.frames if end_s is None else int(np.searchsorted(times, end_s, side="left"))
    every = min(every, max(film.frames, 1))
    chosen = np.arange(from_, to, every)[:max_frames]
    if not len(chosen):
        span = f"from {start_s or 0:g} s on" if end_s is None else f"between {start_s or 0:g} and {end_s:g} s"
        raise InvalidRequest(
            f"No frame lies {span}: the film has {film.frames} frames in {film.duration_s:.3f} s; "
            "name a span within them."
        )
    segments = []
    for number, at in enumerate(range(0, len(chosen), frames_per_segment)):
        part = chosen[at : at + frames_per_segment]
        pts = film.pts[part]
        before = int(np.searchsorted(film.keys, pts[0], side="right"))
        starts = film.keys[max(0, before - _STARTS) : before][::-1]
        stamps = (tuple(starts.tolist()), tuple(pts.tolist()), tuple(times[part].tolist()))
        segments.append(Segment(number, int(part[0]), every, *stamps))
    return segments


def _listed(message: Mapping[str, Any], name: str) -> List[Any]:
    value = message[name]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"a segment's {name} must be a list")
    return list(value)
