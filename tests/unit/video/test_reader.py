"""The pixels of frames: the right ones, upright, in colour, and the same however the film is cut."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import av
import numpy as np
import pytest

from tests.support.films import drawn, frames, make_film, make_webp, number_in
from worker.video.film import Bounds, Film, Head, probe
from worker.video.plan import Segment, plan
from worker.video.reader import Frame, read_frames

BOUNDS = Bounds(max_pixels=1_000_000, max_aspect=10, max_duration_s=3600, max_frames=2000)


def read(path: Path, cut: int = 100, film: Optional[Film] = None, **options: Any) -> Tuple[List[Frame], List[int]]:
    """Each segment as by another process: it has the segment's and the head's messages."""
    found: List[Frame] = []
    missing: List[int] = []
    with path.open("rb") as file:
        film = film or probe(file, path.name, BOUNDS)
    for segment in reversed(plan(film, frames_per_segment=cut, **options)):
        with path.open("rb") as file:
            head = Head.of(film.head().to_message())
            reading = read_frames(file, head, Segment.of(segment.to_message()), path.name, BOUNDS)
            found[:0] = list(reading)
            missing[:0] = reading.missing
            assert not file.closed
    return found, missing


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mp4", {}),  # B-frames
        ("open.mp4", {"options": {"x264-params": "open-gop=1:bframes=3"}}),
        ("open.ts", {"options": {"x264-params": "open-gop=1:bframes=3"}}),
        ("refresh.mp4", {"options": {"x264-params": "intra-refresh=1"}}),  # no whole key frame but the first
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx"}),
        ("a.mpg", {"codec": "mpeg2video"}),
        ("a.avi", {}),
        ("xvid.avi", {"codec": "mpeg4"}),
        ("a.h264", {}),
        ("a.mjpeg", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("a.apng", {"codec": "apng", "pix_fmt": "rgb24"}),
        ("ten_bits.mp4", {"pix_fmt": "yuv422p10le"}),
        ("varying.mp4", {"times_s": [0.04 * at + (0.7 if at > 20 else 0) for at in range(40)]}),
    ],
)
def test_frames_are_the_same_however_the_film_is_cut(tmp_path: Path, name: str, how: Dict[str, Any]) -> None:
    path = make_film(tmp_path / name, frames(40), **how)
    pixels = {}
    for cut in (40, 9, 2):
        found, missing = read(path, cut)
        assert missing == []
        assert [frame.number for frame in found] == list(range(40))
        assert [number_in(frame.pixels) for frame in found] == list(range(40))
        pixels[cut] = [hashlib.sha256(frame.pixels.tobytes()).hexdigest() for frame in found]
    assert pixels[40] == pixels[9] == pixels[2]


def test_webp(tmp_path: Path) -> None:
    path = make_webp(tmp_path / "a.webp", frames(10), [40] * 10)
    for cut in (10, 3):
        found, missing = read(path, cut)
        assert missing == []
        assert [frame.number for frame in found] == list(range(10))
        assert all((frame.pixels == drawn(frame.number)).all() for frame in found)


def test_what_a_frame_is(tmp_path: Path) -> None:
    found, _ = read(make_film(tmp_path / "a.mp4", frames(9)), every=4)
    assert [(frame.number, frame.time_s) for frame in found] == [(0, 0.0), (4, 0.16), (8, 0.32)]
    for frame in found:
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.shape == (192, 256, 3)
        assert frame.pixels.flags.c_contiguous


@pytest.mark.parametrize("chosen", [{"every": 7}, {"start_s": 0.5, "end_s": 1.1}, {"start_s": 1.3, "max_frames": 2}])
@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.avi", "a.gif"])
def test_only_frames_that_are_wanted(tmp_path: Path, name: str, chosen: Dict[str, Any]) -> None:
    how: Dict[str, Any] = {"codec": "gif", "pix_fmt": "rgb8"} if name == "a.gif" else {}
    found, missing = read(make_film(tmp_path / name, frames(40), **how), 3, **chosen)
    assert missing == []
    assert found
    assert [number_in(frame.pixels) for frame in found] == [frame.number for frame in found]


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_a_turned_film_is_upright(tmp_path: Path, clockwise: int) -> None:
    """As if a camera had been held turned to the other side."""
    lying = (np.rot90(picture, clockwise // 90) for picture in frames(5))
    found, _ = read(make_film(tmp_path / "a.mp4", lying, rotation=clockwise))
    assert [number_in(frame.pixels) for frame in found] == list(range(5))
    assert found[0].pixels.shape == (192, 256, 3)
    assert found[0].pixels.flags.c_contiguous


@pytest.mark.parametrize(
    "how",
    [
        {"pix_fmt": "yuv444p"},
        {"pix_fmt": "yuv444p", "colour": 1},  # BT.709
        {"pix_fmt": "yuv422p10le"},
        {"pix_fmt": "yuvj444p"},  # of full range
    ],
)
def test_colours(tmp_path: Path, how: Dict[str, Any]) -> None:
    found, _ = read(make_film(tmp_path / "a.mp4", frames(2), options={"crf": "4"}, **how))
    off = np.abs(found[0].pixels.astype(int) - drawn(0))
    if "colour" in how and int(av.__version__.split(".")[0]) < 18:
        off -= 14  # PyAV 15, Python 3.9's last, takes every film to be of BT.601
    inside = (slice(-32, -8), slice(8, 32))
    assert off[inside].max() < 12  # red
    assert off[-32:-8, -32:-8].max() < 12  # blue
    assert off[60:70, 200:].max() < 8  # the background


def test_a_broken_frame_is_missing_and_the_others_are_there(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.avi", frames(30), codec="mjpeg", pix_fmt="yuvj420p")
    with path.open("rb") as file:
        film = probe(file, "a", BOUNDS)
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data) - 3) if data[at : at + 3] == b"\xff\xd8\xff"]
    length = starts[12] - starts[11] - 16
    data[starts[11] : starts[11] + length] = bytes(length)
    path.write_bytes(data)
    for cut in (30, 4):
        found, missing = read(path, cut, film)
        assert missing == [11]
        assert [number_in(frame.pixels) for frame in found] == [at for at in range(30) if at != 11]


def test_of_a_film_that_vanished_halfway_the_rest_is_missing(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.ts", frames(60))
    with path.open("rb") as file:
        film = probe(file, "a", BOUNDS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, missing = read(path, 13, film)
    assert 10 < len(found) < 50
    assert sorted([frame.number for frame in found] + missing) == list(range(60))


def test_a_film_that_changes_its_size_keeps_its_first(tmp_path: Path) -> None:
    parts = [
        make_film(tmp_path / f"{at}.h264", [drawn(at, *size)] * 8) for at, size in enumerate(((256, 192), (384, 288)))
    ]
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found, missing = read(path, 5)
    assert len(found) + len(missing) == 16
    assert {frame.pixels.shape for frame in found} == {(192, 256, 3)}
    assert found[-1].number > 8


def test_frames_that_outgrow_the_bound_are_missing(tmp_path: Path) -> None:
    parts = [
        make_film(tmp_path / f"{at}.h264", [drawn(at, *size)] * 8) for at, size in enumerate(((256, 192), (1280, 960)))
    ]
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found, missing = read(path)
    assert len(found) == 8
    assert missing == list(range(8, 16))
