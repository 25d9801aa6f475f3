"""What probing finds of films of every kind, and what it refuses."""

from __future__ import annotations

import io
import random
import socket
import struct
import threading
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from PIL import Image

from tests.support.films import drawn, frames, make_film, make_sound, make_webp
from worker.errors import ImageTooLarge, ImageUndecodable, VideoTooLarge, VideoUndecodable
from worker.video.film import Bounds, Film, Head, probe
from worker.video.plan import plan
from worker.video.reader import read_frames

BOUNDS = Bounds(max_pixels=1_000_000, max_aspect=10, max_duration_s=3600, max_frames=2000)


def probed(path: Path, bounds: Bounds = BOUNDS) -> Film:
    with path.open("rb") as file:
        return probe(file, path.name, bounds)


@pytest.mark.parametrize(
    ("name", "format_", "how"),
    [
        ("a.mp4", "mp4", {}),
        ("a.mkv", "matroska", {}),
        ("a.webm", "matroska", {"codec": "libvpx"}),  # with frames that are not shown
        ("a.ts", "mpegts", {}),
        ("a.mpg", "mpeg", {"codec": "mpeg2video"}),
        ("a.avi", "avi", {}),  # B-frames, whose times AVI does not state
        ("a.flv", "flv", {}),
        ("a.wmv", "asf", {"codec": "wmv2"}),
        ("a.h264", "h264", {}),  # no times at all
        ("a.mov", "mp4", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
        ("a.gif", "gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    ],
)
def test_frames_are_counted_without_decoding(tmp_path: Path, name: str, format_: str, how: Dict[str, Any]) -> None:
    film = probed(make_film(tmp_path / name, frames(30), **how))
    assert (film.format, film.width, film.height, film.rotation, film.frames) == (format_, 256, 192, 0, 30)
    # GIF counts in hundredths of a second.
    assert film.times_s == pytest.approx(np.arange(30) / 25, abs=2e-3 if format_ != "gif" else 1e-2)
    assert film.duration_s == pytest.approx(1.2, abs=0.01)
    assert film.fps == pytest.approx(25, rel=0.01)
    assert (np.diff(film.pts) > 0).all()


@pytest.mark.parametrize(("name", "fps"), [("a.mp4", 1), ("a.mkv", 1000)])
def test_slow_and_fast_films(tmp_path: Path, name: str, fps: int) -> None:
    film = probed(make_film(tmp_path / name, frames(20), fps=fps))
    assert film.times_s == pytest.approx(np.arange(20) / fps)
    assert film.fps == pytest.approx(fps)


def test_times_that_vary_are_kept(tmp_path: Path) -> None:
    times = [0, 0.04, 0.1, 0.5, 0.55, 2.0, 2.04]
    film = probed(make_film(tmp_path / "a.mp4", frames(7), times_s=times))
    assert film.times_s == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize(("clockwise", "rotation"), [(90, 270), (180, 180), (270, 90)])
def test_a_turned_film_is_measured_upright(tmp_path: Path, clockwise: int, rotation: int) -> None:
    film = probed(make_film(tmp_path / "a.mp4", frames(3), rotation=clockwise))
    assert film.rotation == rotation
    assert (film.width, film.height) == ((256, 192) if clockwise == 180 else (192, 256))


def test_animated_webp(tmp_path: Path) -> None:
    film = probed(make_webp(tmp_path / "a.webp", frames(4), [40, 100, 60, 200]))
    assert (film.format, film.width, film.height) == ("webp", 256, 192)
    assert list(film.times_s) == [0, 0.04, 0.14, 0.2]
    assert film.duration_s == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_a_picture_that_could_move_is_a_film_of_one_frame(tmp_path: Path, kind: str) -> None:
    film = probed(make_webp(tmp_path / f"a.{kind}", frames(1), [], kind.upper()))
    assert film.frames == 1
    assert film.duration_s > 0


def test_the_extension_does_not_matter_and_sound_is_no_video(tmp_path: Path) -> None:
    film = probed(make_film(tmp_path / "a.mp4", frames(10), audio=True).rename(tmp_path / "a.avi"))
    assert (film.format, film.frames) == ("mp4", 10)


def _cover() -> bytes:
    file = io.BytesIO()
    Image.fromarray(drawn(0)).save(file, "JPEG")
    return file.getvalue()


def test_sound_alone_is_refused_also_with_a_cover(tmp_path: Path) -> None:
    for path in (make_sound(tmp_path / "a.mp4"), make_sound(tmp_path / "a.mp3", _cover())):
        with pytest.raises(VideoUndecodable, match=f"^{path.name} cannot be read as a film: "):
            probed(path)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_still_image_is_to_be_sent_as_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mp4"
    Image.fromarray(drawn(0)).save(path, kind)
    with pytest.raises(VideoUndecodable, match=f"a still {kind.upper()} image; send it as an image"):
        probed(path)


@pytest.mark.parametrize("data", [b"", b"\0", bytes(5000), b"no film\n" * 99], ids=["empty", "byte", "zeros", "text"])
def test_what_is_no_film(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(VideoUndecodable, match="send"):
        probed(tmp_path / "a.mp4")


def test_a_film_without_frames(tmp_path: Path) -> None:
    """All its header is there, and its data is not."""
    header = make_film(tmp_path / "b.mkv", frames(10)).read_bytes()
    (tmp_path / "b.mkv").write_bytes(header[: header.index(b"\x1f\x43\xb6\x75")])  # its first cluster
    with pytest.raises(VideoUndecodable):
        probed(tmp_path / "b.mkv")


def test_an_mp4_whose_end_is_missing_has_no_index(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4", frames(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoUndecodable):
        probed(path)


def test_of_a_film_that_was_cut_off_there_is_its_beginning(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mkv", frames(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 10 < probed(path).frames < 50


def _declaring(folder: Path, count: int) -> Path:
    """A film of ten raw frames, whose sample table and chunks state that there are `count`."""
    path = make_film(folder / "a.mov", frames(10), codec="rawvideo", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    sizes, times, chunks = (data.rindex(name) for name in (b"stsz", b"stts", b"stsc"))
    data[sizes + 12 : sizes + 16] = data[times + 12 : times + 16] = struct.pack(">I", count)
    data[chunks + 16 : chunks + 20] = struct.pack(">I", count)
    path.write_bytes(data)
    return path


def test_declared_frames_are_not_believed(tmp_path: Path) -> None:
    assert probed(_declaring(tmp_path, 1_000_000)).frames <= 11  # the last may be cut off


def test_a_file_that_declares_more_frames_than_it_has_bytes(tmp_path: Path) -> None:
    """FFmpeg would make room for them: for these, 70 GB."""
    path = _declaring(tmp_path, (1 << 31) - 1)
    with pytest.raises(VideoUndecodable, match="declares more frames than it has bytes"):
        probed(path)


@pytest.mark.parametrize(
    ("bounds", "what"),
    [
        (Bounds(1_000_000, 10, 3600, 19), "more than 19 frames"),
        (Bounds(1_000_000, 10, 0.5, 2000), "lasts 1 s, of which 0.5 are admitted"),
        (Bounds(256 * 192 - 1, 10, 3600, 2000), "256×192 pixels"),
        (Bounds(1_000_000, 1.3, 3600, 2000), "longer than 1.3 to 1"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.webp"])
def test_what_is_beyond_the_bounds(tmp_path: Path, bounds: Bounds, what: str, name: str) -> None:
    path = tmp_path / name
    if name == "a.webp":
        make_webp(path, frames(20), [40] * 20)
    else:
        make_film(path, frames(20))
    with pytest.raises(VideoTooLarge, match=f"^{name} is too large: .*{what}.*; send a smaller or shorter film"):
        probed(path, bounds)


def test_who_handles_images_handles_films() -> None:
    assert issubclass(VideoTooLarge, ImageTooLarge)
    assert issubclass(VideoUndecodable, ImageUndecodable)


class _Server:
    """Notes who connects."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.met: List[Any] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        try:
            while True:
                self.met.append(self.socket.accept()[0])
        except OSError:
            pass

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._thread.join()
        for one in self.met:
            one.close()


_LISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{}\nm=video 5004 RTP/AVP 96\n",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1" bandwidth="9"><BaseURL>{}</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
}


@pytest.mark.parametrize("kind", _LISTS)
def test_a_list_that_names_files_or_servers_opens_none(tmp_path: Path, kind: str) -> None:
    server = _Server()
    inner = make_film(tmp_path / "inner.ts", frames(5))
    try:
        for name in (
            f"http://127.0.0.1:{server.port}/a.ts",
            f"tcp://127.0.0.1:{server.port}",
            str(inner),
            "/etc/passwd",
        ):
            path = tmp_path / f"a.{kind}"
            path.write_text(_LISTS[kind].format(name))
            with pytest.raises(VideoUndecodable, match="names other"):
                probed(path)
    finally:
        server.close()
    assert server.met == []


def test_a_file_stays_open(tmp_path: Path) -> None:
    with make_film(tmp_path / "a.mp4", frames(3)).open("rb") as file:
        probe(file, "a", BOUNDS)
        assert not file.closed


class _Failing(io.BytesIO):
    def read(self, size: Any = -1) -> bytes:
        if self.tell() > 2000:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_a_file_that_cannot_be_read_may_be_readable_later(tmp_path: Path) -> None:
    data = make_film(tmp_path / "a.ts", frames(30)).read_bytes()
    with pytest.raises(OSError, match="Input/output error"):
        probe(_Failing(data), "a", BOUNDS)


@pytest.mark.parametrize("message", [None, {}, {"format": "mp4"}, []])
def test_no_head(message: Any) -> None:
    with pytest.raises(ValueError, match="head"):
        Head.of(message)


@pytest.mark.parametrize(
    "change", [{"width": 0}, {"height": 1 << 20}, {"width": True}, {"rotation": 45}, {"counted": 1}, {"format": 3}]
)
def test_a_heads_fields_are_checked(change: Dict[str, Any]) -> None:
    message = Head("mp4", 256, 192, 90, False).to_message()
    assert Head.of(message).to_message() == message
    with pytest.raises(ValueError, match="must be"):
        Head.of({**message, **change})


_FUZZED = {
    "a.mp4": {},
    "a.mkv": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "a.ts": {},
    "a.avi": {"codec": "mpeg4"},
    "a.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}  # type: Dict[str, Dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> List[bytes]:
    folder = tmp_path_factory.mktemp("whole")
    films = [make_film(folder / name, frames(12, 160, 96), gop=5, **how) for name, how in _FUZZED.items()]
    films.append(make_webp(folder / "a.webp", frames(3, 160, 96), [40] * 3))
    return [film.read_bytes() for film in films]


def damaged(data: bytes, seed: int) -> bytes:
    random_ = random.Random(seed)
    out = bytearray(data)
    for _ in range(random_.choice((1, 3, 20))):
        out[random_.randrange(random_.choice((64, len(out))))] = random_.randrange(256)
    if random_.random() < 0.3:
        del out[random_.randrange(1, len(out)) :]
    return bytes(out)


def looked_at(data: bytes) -> None:
    """Probe, plan and read a film: no other errors than ours come out."""
    file = io.BytesIO(data)
    try:
        film = probe(file, "a film", BOUNDS)
        for segment in plan(film, max_frames=20, frames_per_segment=7):
            reading = read_frames(file, film.head(), segment, "a film", BOUNDS)
            numbers = [frame.number for frame in reading]
            assert sorted(numbers + reading.missing) == [segment.frame_number(at) for at in range(len(segment.pts))]
    except (VideoTooLarge, VideoUndecodable):
        pass


@pytest.mark.parametrize("seed", range(10))
def test_damaged_films_end_typed(whole: List[bytes], seed: int) -> None:
    for data in whole:
        looked_at(damaged(data, seed))
