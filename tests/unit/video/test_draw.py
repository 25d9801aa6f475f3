"""A film's frame with its people, and a film of such frames, encoded by the segment and put together."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

import av
import numpy as np
import pytest

from worker.contract import OverlayOptions
from worker.people import to_style
from worker.pose.people import People
from worker.pose.skeletons import COCO_18
from worker.video.draw import TRAIL_S, Drawer
from worker.video.encode import encode, join_films
from worker.video.lines import FrameFound

STYLE = to_style(OverlayOptions(colors="people"))


def _found(number: int, ids: Tuple[int, ...] = (0, 1)) -> FrameFound:
    draws = np.random.default_rng(5)
    keypoints = np.full((len(ids), 18, 3), 0.9, np.float32)
    for place in range(len(ids)):
        keypoints[place, :, :2] = draws.uniform(40, 100, (18, 2)) + (4 * number, 90 * place)
    return FrameFound(number, number / 25, People(keypoints, np.ones(len(ids), np.float32)), np.array(ids))


def _drawn(found: List[FrameFound], first: int) -> List[np.ndarray]:
    """Frames from `first` on, as the part that draws them does it."""
    drawer, black = Drawer(COCO_18, STYLE), np.zeros((240, 400, 3), np.uint8)
    drawer.see(one for one in found[:first] if one.time_s >= found[first].time_s - TRAIL_S)
    return [drawer.draw(black, one) for one in found[first:]]


def test_what_is_drawn_does_not_depend_on_how_the_film_was_cut() -> None:
    found = [_found(number) for number in range(40)]
    for one, other in zip(_drawn(found, 0)[33:], _drawn(found, 33)):
        np.testing.assert_array_equal(one, other)


def test_a_person_has_the_colour_of_the_id_a_number_and_a_trail() -> None:
    alone = _drawn([_found(0, (3,))], 0)[0]
    assert np.array_equal(alone, _drawn([_found(0, (11,))], 0)[0]) is False  # another number
    moved = _drawn([_found(number, (3,)) for number in range(10)], 0)[-1]
    still = _drawn([_found(9, (3,))], 0)[0]
    assert (moved != still).any(axis=2).sum() > 30  # the way that was come
    assert not np.array_equal(still, _drawn([_found(9, (4,))], 0)[0])


@pytest.mark.parametrize("colors", ["people", "#ff0000,#00ff00"])
def test_who_changes_places_keeps_the_colour(colors: str) -> None:
    style = to_style(OverlayOptions(colors=colors))
    found, black = _found(0, (0, 1)), np.zeros((240, 400, 3), np.uint8)
    turned = FrameFound(0, 0.0, People(found.people.keypoints[::-1], found.people.scores), np.array([1, 0]))
    one_way, other_way = (
        Drawer(COCO_18, style).draw(black, one)[130:] for one in (found, turned)
    )  # where one of them is
    np.testing.assert_array_equal(one_way, other_way)


def test_a_trail_vanishes_into_the_picture() -> None:
    white = np.full((240, 400, 3), 255, np.uint8)
    drawer = Drawer(COCO_18, to_style(OverlayOptions(colors="people", render_threshold=1)))  # no joints
    pictures = [drawer.draw(white, _found(number, (0,))) for number in range(25)]
    old = pictures[-1][:, :80]  # where the person was at first: numbers are above it
    assert (old != 255).any()
    assert old[old.min(axis=2) < 255].max(axis=1).min() > 200  # red, fainter; nothing dark


def test_a_frame_without_people_is_as_it_was() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    np.testing.assert_array_equal(Drawer(COCO_18, STYLE).draw(pixels, None), pixels)


def _pictures(times: List[float]) -> List[Tuple[np.ndarray, float]]:
    pictures = []
    for number, time_s in enumerate(times):
        picture = np.full((61, 81, 3), (40, 90, 160), np.uint8)
        picture[20:40, number : number + 20] = (0, 0, 255)
        pictures.append((picture, time_s))
    return pictures


TIMES = [*(number / 30 for number in range(30)), *(1 + number / 7 for number in range(30))]


@pytest.mark.parametrize("size", [60, 13])
def test_a_film_in_pieces_has_each_frame_at_its_time(tmp_path: Path, size: int) -> None:
    pictures, parts = _pictures(TIMES), []
    for at in range(0, len(pictures), size):
        path = tmp_path / f"{at}.mp4"
        path.write_bytes(encode(pictures[at : at + size], TIMES[at], 90))
        parts.append((path, TIMES[at]))
    out = tmp_path / "out.mp4"
    join_films(parts, out)
    with av.open(str(out)) as film:
        frames = list(film.decode(video=0))
    assert [float(frame.time) for frame in frames] == pytest.approx(TIMES, abs=1e-3)
    assert {(frame.width, frame.height) for frame in frames} == {(80, 60)}
    for frame, (picture, _) in zip(frames, pictures):
        shown = frame.to_ndarray(format="bgr24").astype(int)
        assert np.abs(shown - picture[:60, :80]).mean() < 12
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a browser plays it at once


def test_a_segment_that_begins_with_a_missing_frame_keeps_its_times(tmp_path: Path) -> None:
    pictures = _pictures(TIMES[:20])
    for name, some, start_s in (("a", pictures[:10], TIMES[0]), ("b", pictures[12:], TIMES[10])):
        (tmp_path / f"{name}.mp4").write_bytes(encode(some, start_s, 50))
    join_films([(tmp_path / "a.mp4", TIMES[0]), (tmp_path / "b.mp4", TIMES[10])], tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as film:
        times = [float(frame.time) for frame in film.decode(video=0)]
    assert times == pytest.approx([*TIMES[:10], *TIMES[12:20]], abs=1e-3)


def test_without_h264_the_film_is_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.video.encode._CODECS", ("mpeg4",))
    for at in (0, 30):
        (tmp_path / f"{at}.mp4").write_bytes(encode(_pictures(TIMES)[at : at + 30], TIMES[at], 90))
    join_films([(tmp_path / f"{at}.mp4", TIMES[at]) for at in (0, 30)], tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as film:
        assert film.streams.video[0].codec_context.name == "mpeg4"
        assert [float(frame.time) for frame in film.decode(video=0)] == pytest.approx(TIMES, abs=1e-3)


def test_films_that_do_not_fit_are_not_put_together(tmp_path: Path) -> None:
    for name, side in (("a", 64), ("b", 96)):
        picture = np.zeros((64, side, 3), np.uint8)
        (tmp_path / f"{name}.mp4").write_bytes(encode([(picture, 0.0), (picture, 0.1)], 0.0, 90))
    with pytest.raises(ValueError, match=r"b\.mp4 was encoded otherwise than a\.mp4"):
        join_films([(tmp_path / "a.mp4", 0.0), (tmp_path / "b.mp4", 0.2)], tmp_path / "out.mp4")


def test_no_frames_are_no_film() -> None:
    assert encode([], 0.0, 90) == b""


def test_quality_is_paid_for_in_bytes() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (10, 64, 96, 3), np.uint8)
    sizes = [len(encode([(one, at / 10) for at, one in enumerate(noise)], 0.0, quality)) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.5 * sizes[-1]
