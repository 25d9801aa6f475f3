"""The segments of a film become one: the same person has the same id in all of them, however the film was cut."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterable, List, Optional

import numpy as np

from worker.pose.skeleton import Skeleton
from worker.pose.smoothing import Smoother
from worker.pose.tracking import Tracker
from worker.video.lines import Lines, loads

#: Seconds out of sight that do not part a span.
_GAP_S = 1.0


@dataclass
class _Seen:
    """When somebody was seen."""

    first_frame: int
    last_frame: int
    frames: int
    spans_s: List[List[float]]


@dataclass
class Joined:
    """A film's people.

    Attributes:
        data: a line a frame, see :mod:`worker.video.lines`.
        frames: frames that were looked at.
        with_people: those in which somebody was found.
        most_people: most people in a frame.
        tracks: by id, who was followed, as worker.video_contract.Track has it.
    """

    data: bytes = b""
    frames: int = 0
    with_people: int = 0
    most_people: int = 0
    tracks: List[Dict[str, Any]] = field(default_factory=list)

    def summary(self) -> Dict[str, Any]:
        """All but the data."""
        return {name: value for name, value in vars(self).items() if name != "data"}


def join(segments: Iterable[bytes], skeleton: Skeleton, *, track: bool, cutoff: Optional[float] = None) -> Joined:
    """Join what was found in a film's segments.

    Args:
        segments: their lines, in order.
        track: whether people get ids.
        cutoff: Hz, of :class:`worker.pose.smoothing.Smoother`; None: joints stay where they were found.

    Raises:
        ValueError: a segment's lines are none.
    """
    tracker = Tracker(np.array(skeleton.sigmas)) if track else None
    smoother = Smoother(cutoff) if track and cutoff is not None else None
    joined, lines = Joined(), Lines()
    seen: Dict[int, _Seen] = {}
    for found in (one for segment in segments for one in loads(segment, skeleton)):
        if tracker is not None:
            keypoints = found.people.keypoints
            ids = tracker.update(keypoints, found.time_s)
            if smoother is not None:
                keypoints = smoother.update(keypoints, ids, found.time_s)
            found = replace(found, people=replace(found.people, keypoints=keypoints), ids=ids)
            for one in ids.tolist():
                _note(seen, one, found.number, found.time_s)
        lines.add(found)
        joined.frames += 1
        joined.with_people += len(found.people) > 0
        joined.most_people = max(joined.most_people, len(found.people))
    joined.data = lines.close()
    joined.tracks = [{"id": one, **vars(seen[one])} for one in sorted(seen)]
    return joined


def _note(seen: Dict[int, _Seen], one: int, number: int, time_s: float) -> None:
    known = seen.setdefault(one, _Seen(number, number, 0, []))
    known.last_frame, known.frames = number, known.frames + 1
    if known.spans_s and time_s - known.spans_s[-1][1] <= _GAP_S:
        known.spans_s[-1][1] = time_s
    else:
        known.spans_s.append([time_s, time_s])
