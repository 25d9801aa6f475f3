"""What was found in a film's segments, kept by line, and joined: the same however the film was cut."""

from __future__ import annotations

import gzip
import json
from typing import Any, List

import numpy as np
import pytest

from worker.pose.people import People
from worker.pose.skeletons import COCO_18
from worker.video.join import Joined, join
from worker.video.lines import FrameFound, dumps, loads

COUNT = 60


def _person(x: float, y: float) -> np.ndarray:
    offsets = np.random.default_rng(1).uniform(0, 80, (18, 2))
    return np.column_stack([offsets + (x, y), np.full(18, 0.8)]).astype(np.float32)


@pytest.fixture
def film() -> List[FrameFound]:
    """Two people who walk towards each other and on; one is out of sight for a while, and nobody is there at first."""
    frames = []
    for number in range(COUNT):
        people = [_person(20 + 6 * number, 100), _person(400 - 6 * number, 130)]
        people = people[: 0 if number < 3 else 1 if 40 <= number < 44 else 2]
        keypoints = np.stack(people) if people else np.zeros((0, 18, 3), np.float32)
        keypoints[..., 4, :] = (np.nan, np.nan, 0)
        frames.append(FrameFound(number, number / 20, People(keypoints, np.full(len(people), 0.7, np.float32))))
    return frames


def _joined(film: List[FrameFound], size: int, track: bool = True, cutoff: float = 0.0) -> Joined:
    segments = (dumps(film[at : at + size]) for at in range(0, len(film), size))
    return join(segments, COCO_18, track=track, cutoff=cutoff or None)


def test_lines_are_read_as_they_were_written(film: List[FrameFound]) -> None:
    data = dumps(film)
    assert data == dumps(film)  # the same people give the same bytes
    read = list(loads(data, COCO_18))
    assert [(one.number, one.time_s) for one in read] == [(one.number, one.time_s) for one in film]
    for one, other in zip(read, film):
        np.testing.assert_allclose(one.people.keypoints, other.people.keypoints, atol=0.005)
    line = json.loads(gzip.decompress(data).splitlines()[10])
    assert sorted(line) == ["frame", "people", "time_s"]
    assert sorted(line["people"][0]) == ["keypoints", "score"]
    assert line["people"][0]["keypoints"][4] is None


@pytest.mark.parametrize("size", [1, 7, 20])
@pytest.mark.parametrize("cutoff", [0.0, 2.0])
def test_the_result_does_not_depend_on_how_the_film_was_cut(film: List[FrameFound], size: int, cutoff: float) -> None:
    assert _joined(film, size, cutoff=cutoff) == _joined(film, COUNT, cutoff=cutoff)


def test_who_was_followed_and_when(film: List[FrameFound]) -> None:
    joined = _joined(film, 9)
    assert (joined.frames, joined.with_people, joined.most_people) == (COUNT, COUNT - 3, 2)
    first, second = joined.tracks
    assert (first["first_frame"], first["last_frame"], first["frames"]) == (3, COUNT - 1, COUNT - 3)
    assert second["frames"] == COUNT - 3 - 4
    assert second["spans_s"] == [[3 / 20, (COUNT - 1) / 20]]  # a gap that short parts nothing
    ids = [one.ids.tolist() for one in loads(joined.data, COCO_18) if one.ids is not None]
    assert ids[30] == [first["id"], second["id"]]


def test_a_long_gap_parts_a_span() -> None:
    seen = [FrameFound(at, float(at) / 10, People(_person(20, 20)[None], np.ones(1, np.float32))) for at in range(30)]
    gone = [FrameFound(at, at / 10, People.nobody(18)) for at in range(30, 38)]
    back = [FrameFound(at, at / 10, seen[0].people) for at in range(38, 50)]
    [track] = join([dumps([*seen, *gone, *back])], COCO_18, track=True).tracks
    assert track["spans_s"] == [[0.0, 4.9]]


def test_without_tracking_nobody_has_an_id(film: List[FrameFound]) -> None:
    joined = _joined(film, 9, track=False)
    assert joined.tracks == []
    assert all(one.ids is None for one in loads(joined.data, COCO_18) if len(one.people))


def test_joints_that_tremble_are_smoothed() -> None:
    draws = np.random.default_rng(3)
    film = []
    for number in range(COUNT):
        keypoints = _person(50, 50)[None].copy()
        keypoints[..., :2] += draws.normal(0, 2, keypoints[..., :2].shape)
        film.append(FrameFound(number, number / 25, People(keypoints, np.ones(1, np.float32))))

    def trembling(joined: Joined) -> float:
        return float(np.std([one.people.keypoints[0, 0, 0] for one in loads(joined.data, COCO_18)]))

    assert trembling(_joined(film, 9, cutoff=0.5)) < 0.5 * trembling(_joined(film, 9))


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"frame": 1}',
        b'{"frame": -1, "time_s": 0, "people": []}',
        b'{"frame": 1, "time_s": NaN, "people": []}',
        b'{"frame": 1, "time_s": 0, "people": [{"score": 1, "keypoints": [[1, 2]]}]}',
        b'{"frame": 1, "time_s": 0, "people": [{"score": "x", "keypoints": []}]}',
    ],
)
def test_what_are_no_lines_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of many kinds
        list(loads(gzip.compress(line + b"\n"), COCO_18))


_BODY = [[1, 2, 0.5]] * 18


@pytest.mark.parametrize(
    "people",
    [
        [{"score": 0.5, "keypoints": [["1", "2", "0.5"]] * 18}],
        [{"score": 0.5, "keypoints": [[True, False, True]] * 18}],
        [{"score": 0.5, "keypoints": [[1e300, 2, 0.5]] * 18}],
        [{"score": 0.5, "keypoints": [[1, 2, -1]] * 18}],
        [{"score": 0.5, "keypoints": [[float("nan"), 2, 0.5]] * 18}],
        [{"score": 0.5, "keypoints": [[float("inf"), 2, 0.5]] * 18}],
        [{"score": 0.5, "keypoints": [1] * 54}],
        [{"score": 0.5, "keypoints": _BODY, "hand_left": [None] * 20}],
        [{"score": "0.5", "keypoints": _BODY}],
        [{"score": float("nan"), "keypoints": _BODY}],
        [{"id": "3", "score": 0.5, "keypoints": _BODY}],
        [{"id": 3.5, "score": 0.5, "keypoints": _BODY}],
        [{"id": -1, "score": 0.5, "keypoints": _BODY}],
        [{"id": 1, "score": 0.5, "keypoints": _BODY}] * 2,  # two with one id
        [{"id": 1, "score": 0.5, "keypoints": _BODY}, {"score": 0.5, "keypoints": _BODY}],
        ["somebody"],
    ],
)
def test_what_are_no_people_is_refused(people: List[Any]) -> None:
    line = json.dumps({"frame": 1, "time_s": 0.5, "people": people}).encode()
    with pytest.raises(ValueError, match="no lines of a film's people"):
        list(loads(gzip.compress(line), COCO_18))


@pytest.mark.parametrize(("number", "time_s"), [(4, 0.9), (5, 0.9), (6, 0.5), (6, 0.4)])
def test_frames_that_are_out_of_order_are_refused(number: int, time_s: float) -> None:
    lines = [{"frame": at, "time_s": when, "people": []} for at, when in ((5, 0.5), (number, time_s))]
    data = gzip.compress("\n".join(map(json.dumps, lines)).encode())
    with pytest.raises(ValueError, match="out of order"):
        list(loads(data, COCO_18))


def test_no_more_is_unpacked_than_is_allowed(film: List[FrameFound]) -> None:
    data = dumps(film)
    size = len(gzip.decompress(data))
    assert len(list(loads(data, COCO_18, size))) == COUNT
    frames = loads(data, COCO_18, size - 1)
    assert next(frames).number == 0
    with pytest.raises(ValueError, match="more than"):
        list(frames)


def test_bytes_that_were_damaged_are_refused(film: List[FrameFound]) -> None:
    data, draws = dumps(film), np.random.default_rng(7)
    for place in draws.integers(20, len(data), 60):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(draws.integers(8))
        with pytest.raises(ValueError, match="no lines of a film's people"):
            list(loads(bytes(damaged), COCO_18))


def test_what_is_no_gzip_is_refused(film: List[FrameFound]) -> None:
    for data in (b"plain", dumps(film)[:-20]):
        with pytest.raises(ValueError, match="no lines"):
            list(loads(data, COCO_18))
