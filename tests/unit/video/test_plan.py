"""Which frames are looked at, and that a segment survives its message."""

from __future__ import annotations

import json
from typing import Any, Dict

import numpy as np
import pytest

from worker.errors import InvalidRequest
from worker.video.film import Film
from worker.video.plan import FRAMES_PER_SEGMENT, MAX_FRAMES_PER_SEGMENT, Segment, plan


def film(count: int = 250, fps: float = 25, first: int = 700, step: int = 10, gop: int = 50) -> Film:
    pts = first + np.arange(count, dtype=np.int64) * step
    return Film(64, 48, "mp4", "h264", 0, False, pts, np.arange(count) / fps, count / fps, pts[::gop])


def numbers(*args: Any, **options: Any) -> list:
    return [one.frame_number(at) for one in plan(*args, **options) for at in range(len(one.pts))]


def test_a_film_is_cut_into_segments_that_follow_on_each_other() -> None:
    segments = plan(film(), frames_per_segment=100)
    assert [(one.number, one.first, len(one.pts)) for one in segments] == [(0, 0, 100), (1, 100, 100), (2, 200, 50)]
    assert segments[1].pts[:2] == (1700, 1710)
    assert segments[1].times_s[:2] == (4.0, 4.04)
    assert segments[1].starts == (1700, 1200, 700)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"every": 100}, [0, 100, 200]),
        ({"every": 10**9}, [0]),  # beyond the film's length
        ({"start_s": 0.4, "end_s": 0.52}, [10, 11, 12]),  # the end is not of it
        ({"start_s": 0.41, "end_s": 0.6, "every": 2}, [11, 13]),
        ({"start_s": 9.9}, [248, 249]),
        ({"end_s": 1e9, "every": 50, "max_frames": 2}, [0, 50]),
        ({"max_frames": 3}, [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("frames_per_segment", [1, 7, 100])
def test_chosen_are(options: Dict[str, Any], chosen: list, frames_per_segment: int) -> None:
    assert numbers(film(), frames_per_segment=frames_per_segment, **options) == chosen


@pytest.mark.parametrize("options", [{"start_s": 10}, {"start_s": 3, "end_s": 3}, {"start_s": 0.41, "end_s": 0.43}])
def test_where_no_frame_lies_the_films_length_is_named(options: Dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"250 frames in 10\.000 s"):
        plan(film(), **options)


@pytest.mark.parametrize("options", [{"every": 0}, {"max_frames": 0}, {"frames_per_segment": 0}])
def test_out_of_range(options: Dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan(film(), **options)


def test_a_long_films_segments_fit_into_messages() -> None:
    long = film(count=90_000, fps=29.97, first=-(1 << 52), step=1_000_003)
    for per in (FRAMES_PER_SEGMENT, MAX_FRAMES_PER_SEGMENT):
        messages = [json.dumps(one.to_message(), separators=(",", ":")) for one in plan(long, frames_per_segment=per)]
        assert max(map(len, messages)) < 8192
        assert len(messages) == 90_000 / per
        assert Segment.of(json.loads(messages[-1])) == plan(long, frames_per_segment=per)[-1]


def test_a_film_that_cannot_be_begun_anywhere_is_begun_at_its_beginning() -> None:
    whole = film()
    gif = Film(64, 48, "gif", "gif", 0, False, whole.pts, whole.times_s, whole.duration_s, whole.keys[:0])
    assert {one.starts for one in plan(gif)} == {()}


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"number": True},
        {"every": 0},
        {"first": 1.5},
        {"pts": []},
        {"pts": [1, 2]},  # as many as times
        {"pts": [700, 720, 710]},
        {"pts": [700, 710, "720"]},
        {"pts": [700, 710, 1 << 60]},
        {"pts": list(range(MAX_FRAMES_PER_SEGMENT + 1)), "times_s": [0] * (MAX_FRAMES_PER_SEGMENT + 1)},
        {"times_s": [0, 1, float("nan")]},
        {"times_s": [0, 2, 1]},
        {"times_s": "abc"},
        {"starts": [701]},  # after its first frame
        {"starts": [600, 650]},
        {"starts": None},
        {"more": 1},
    ],
)
def test_a_message_is_checked(change: Dict[str, Any]) -> None:
    message = plan(film(3))[0].to_message()
    assert Segment.of(message).to_message() == message
    with pytest.raises(ValueError, match="segment"):
        Segment.of({**message, **change})


@pytest.mark.parametrize("message", [None, [], {}, "x"])
def test_no_segment(message: Any) -> None:
    with pytest.raises(ValueError, match="segment"):
        Segment.of(message)
