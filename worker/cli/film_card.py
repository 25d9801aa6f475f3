"""A film on the page of a batch: its player, the keypoints that are shown on it, and who is seen when."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple
from urllib.parse import quote

from worker.client.film import Frame, frames_of
from worker.errors import JobFailed
from worker.files import printable
from worker.video_contract import VideoResult

#: Most keypoints of a film that are on the page, some 10 bytes each; of longer films, each n-th frame's are.
_MOST_JOINTS = 400_000
#: Most people that have a line in the timeline: those who are seen for longest.
_MOST_PEOPLE = 40
#: Spans that are nearer to each other than this share of the film are one in the timeline.
_NEAR = 1 / 500
#: Seconds out of sight that part two spans of anybody, where nobody was followed.
_GAP_S = 1.0

Span = Tuple[float, float]


def film_card(
    name: str, result: VideoResult, keypoints: bytes, film: Optional[Path], page: Path, *, drawn: bool
) -> str:
    """The article of a film.

    Args:
        name: what it is called.
        keypoints: as its job has kept them.
        film: what is played, a file; None: there is none, and people are drawn on black.
        page: the file that the article is in, by which the film is found.
        drawn: whether `film` was drawn for this: it then begins with the first frame that was looked at.

    Raises:
        JobFailed: the keypoints are none of this film's.
    """
    joints, anybody, first_s, last_s = _survey(result, keypoints)
    step = max(1, -(-joints // _MOST_JOINTS))
    offset_s = first_s if drawn else 0.0
    data = {
        "width": result.video.width,
        "height": result.video.height,
        "names": result.keypoint_names,
        "limbs": result.limbs,
        "offset": offset_s,
        "frames": _compact(result, frames_of(result.job_id, keypoints), step),
    }
    people = len(result.tracks) or result.most_people
    shown, count = _text(name), "1 person" if people == 1 else f"{people} people"
    thin = f" · keypoints of each {_ordinal(step)} frame are shown" if step > 1 else ""
    warnings = "".join(f'<p class="warning">{_text(warning)}</p>' for warning in result.warnings)
    # What a script of no script's type holds is only read; no text in it can end it.
    embedded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<article class="film" data-name="{shown}" data-people="{people}" data-ms="{result.seconds * 1000:.0f}">'
        f'<div class="player" style="--shape: {result.video.width} / {result.video.height}">{_video(film, page)}'
        f'<canvas aria-hidden="true"></canvas></div>'
        f'<div class="text"><h2 title="{_text(result.video.path)}">{shown}</h2>'
        f'<p class="facts">{count} · {result.video.width}×{result.video.height} · {result.frames} frames · '
        f"{_clock(last_s - first_s)} · {result.seconds:.1f} s in {result.segments} segments · "
        f"{_text(result.model.name)}{thin}</p>{warnings}{_timeline(result, anybody, first_s, last_s)}</div>"
        f'<script type="application/json">{embedded}</script></article>\n'
    )


def _video(film: Optional[Path], page: Path) -> str:
    if film is None:
        return ""
    where = os.path.relpath(film, page.parent)
    # A name that looks like a scheme's must not be one.
    url = quote(os.fsencode(f"./{where}" if not where.startswith("..") else where))
    return f'<video src="{html.escape(url)}" controls muted playsinline preload="metadata"></video>'


def _survey(result: VideoResult, keypoints: bytes) -> Tuple[int, List[Span], float, float]:
    """How many keypoints there are, when anybody is seen, and the times of the first and last frame."""
    joints, spans = 0, []
    first_s: Optional[float] = None
    last_s = 0.0
    for frame in frames_of(result.job_id, keypoints):
        first_s, last_s = frame.time_s if first_s is None else first_s, frame.time_s
        joints += len(frame.people) * len(result.keypoint_names)
        if frame.people:
            spans.append((frame.time_s, frame.time_s))
            if len(spans) > 1 and frame.time_s - spans[-2][1] <= _GAP_S:
                spans[-2:] = [(spans[-2][0], frame.time_s)]
    return joints, spans, first_s or 0.0, last_s


def _compact(result: VideoResult, frames: Iterable[Frame], step: int) -> List[Any]:
    """Of each `step`-th frame its time and its people: id, and x, y and confidence in percent of each keypoint."""
    count, kept = len(result.keypoint_names), []
    try:
        for number, frame in enumerate(frames):
            if number % step:
                continue
            people = [[int(person.get("id", -1)), *_flat(person["keypoints"], count)] for person in frame.people]
            kept.append([round(frame.time_s, 3), people])
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as exc:
        raise JobFailed(f"The keypoints of job {result.job_id} are none of a film ({exc}); submit it again.") from exc
    return kept


def _flat(joints: Sequence[Any], count: int) -> List[int]:
    if len(joints) != count:
        raise ValueError(f"{len(joints)} keypoints instead of {count}")
    return [round(value * scale) for joint in joints for value, scale in zip(joint or (0, 0, 0), (1, 1, 100))]


def _timeline(result: VideoResult, anybody: List[Span], first_s: float, last_s: float) -> str:
    """A line for each person, with a bar while they are seen."""
    length = max(last_s - first_s, 1e-3)
    longest = sorted(result.tracks, key=lambda track: (-track.frames, track.id))[:_MOST_PEOPLE]
    rows: Dict[str, List[Span]] = {f"{track.id}": track.spans_s for track in sorted(longest, key=lambda one: one.id)}
    if not rows and anybody:
        rows = {"anybody": anybody}
    lines = "".join(
        f'<div class="row"><span>{label}</span><div class="bar">{_bars(spans, first_s, length)}</div></div>'
        for label, spans in rows.items()
    )
    left = len(result.tracks) - len(longest)
    more = f'<p class="facts">{left} more were seen for a shorter time.</p>' if left else ""
    return (
        f'<div class="timeline" data-start="{first_s:.3f}" data-length="{length:.3f}" role="group" '
        f'aria-label="Who is seen when; click to go there">{lines}</div>{more}'
    )


def _bars(spans: Sequence[Span], first_s: float, length: float) -> str:
    bars = []
    for start, end in _merged(spans, length * _NEAR):
        left, right = (min(max((moment - first_s) / length, 0.0), 1.0) for moment in (start, end))
        bars.append(
            f'<i style="left:{100 * left:.2f}%;width:{100 * (right - left):.2f}%" '
            f'title="{_clock(start)} to {_clock(end)}"></i>'
        )
    return "".join(bars)


def _merged(spans: Sequence[Span], near: float) -> List[Span]:
    merged: List[Span] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] <= near:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(seconds, 0.0), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _ordinal(number: int) -> str:
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(last, 'th') }"


def _text(text: str) -> str:
    return html.escape(printable(text))


__all__ = ["film_card"]
