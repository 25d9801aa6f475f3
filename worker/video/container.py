"""The boundary to FFmpeg: what it may open, and what its errors become.

A film comes from a stranger. FFmpeg gets the file's bytes and nothing else: only demuxers that need no second file are
admitted, and whatever names a file or an address is not opened. Its threads are off: a worker's other slots fill the
cores.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import BinaryIO, Dict, Iterator, NoReturn, Tuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from worker.errors import VideoTooLarge, VideoUndecodable
from worker.video.mp4 import declares_too_much

#: Demuxers, by the name that people give their files. None of them opens a second file: hls, dash, concat, sdp and
#: image2 are not here.
FORMATS: Dict[str, str] = {
    "mov": "mp4",
    "matroska": "matroska",
    "avi": "avi",
    "mpegts": "mpegts",
    "mpeg": "mpeg",
    "mpegvideo": "mpegvideo",
    "flv": "flv",
    "ogg": "ogg",
    "asf": "asf",
    "gif": "gif",
    "apng": "apng",
    "h264": "h264",
    "hevc": "hevc",
    "mjpeg": "mjpeg",
    "yuv4mpegpipe": "y4m",
    "ivf": "ivf",
    "obu": "obu",
    "m4v": "m4v",
    "mxf": "mxf",
}
_DEMUXERS = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm"}
#: Decoders of video that are in use. FFmpeg has hundreds more, seldom tried and seldom needed.
CODECS = frozenset(
    (
        *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libvpx", "libvpx-vp9"),
        *(
            "mpeg1video",
            "mpeg2video",
            "mpeg4",
            "msmpeg4v1",
            "msmpeg4",
            "msmpeg4v2",
            "msmpeg4v3",
            "wmv1",
            "wmv2",
            "wmv3",
        ),
        *("vc1", "theora", "flv", "h263", "h263i", "h263p", "vp6", "vp6a", "vp6f", "svq1", "svq3", "cinepak", "qtrle"),
        *("prores", "dnxhd", "dvvideo", "ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo"),
        *("mjpeg", "gif", "apng", "png"),
    )
)
#: What begins a file that is no film, and what to say of it.
_OTHERS: Tuple[Tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "it is a still JPEG image; send it as an image"),
    (b"\x89PNG\r\n\x1a\n", "it is a still PNG image; send it as an image"),
    (b"#EXTM3U", "it is a playlist that names other files; send the film itself"),
    (b"ffconcat", "it is a list that names other files; send the film itself"),
    (b"v=0", "it is a session description that names other addresses; send the film itself"),
    (b"<?xml", "it is a manifest that names other files; send the film itself"),
    (b"<MPD", "it is a manifest that names other files; send the film itself"),
)


#: PyAV 15, which is Python 3.9's last, crashes on options where a container names its streams late, as MPEG-TS does.
_OPTIONS_ARE_SAFE = int(av.__version__.split(".")[0]) >= 18


class _Bytes:
    """What FFmpeg gets of a file: no name, no descriptor, no way to write to it or to close it."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def undecodable(shown: str, reason: str) -> VideoUndecodable:
    return VideoUndecodable(f"{shown} cannot be read as a film: {reason}.")


def too_large(shown: str, reason: str) -> VideoTooLarge:
    return VideoTooLarge(
        f"{shown} is too large: {reason}; send a smaller or shorter film, or raise the worker's limit."
    )


def reason_of(exc: BaseException) -> str:
    """An error of FFmpeg's in few words."""
    return " ".join(str(getattr(exc, "strerror", None) or exc).split()) or type(exc).__name__


@contextmanager
def opened(file: BinaryIO, shown: str, max_pixels: int) -> Iterator[Tuple[InputContainer, VideoStream]]:
    """A film's container and its best video stream, from the file's beginning; closed when the context ends.

    Nothing of the film is decoded but what FFmpeg needs to know its size, and no picture of more than `max_pixels`.

    Raises:
        VideoUndecodable: no film in an accepted format, or no video in it.
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(16)
    if not head:
        raise undecodable(shown, "it is empty; send a whole film")
    if declares_too_much(file):
        raise undecodable(shown, "it declares more frames than it has bytes; send a whole film")
    file.seek(0)
    try:
        container = av.open(
            _Bytes(file),
            mode="r",
            options={"max_pixels": str(max_pixels), "threads": "1"} if _OPTIONS_ARE_SAFE else {},
            container_options={
                "format_whitelist": ",".join(_DEMUXERS.get(name, name) for name in FORMATS),
                "codec_whitelist": ",".join(sorted(CODECS)),
                "protocol_whitelist": "none",
            },
            metadata_errors="replace",
            io_open=_refuse,
        )
    except FFmpegError as exc:
        raise _not_opened(head, shown, exc) from exc
    try:
        stream = _video_of(container, shown)
        context = stream.codec_context
        context.thread_type = "NONE"
        context.thread_count = 1
        context.options = {"max_pixels": str(max_pixels)}
        yield container, stream
    finally:
        container.close()


def format_of(container: InputContainer) -> str:
    return FORMATS.get(container.format.name.split(",")[0], container.format.name)


def _video_of(container: InputContainer, shown: str) -> VideoStream:
    """The largest picture of those that move: the cover of a record is none."""
    videos = [one for one in container.streams.video if one.codec_context is not None]  # the rest have no decoder
    moving = [one for one in videos if not one.disposition & Disposition.attached_pic]
    if not moving:
        raise undecodable(
            shown, "it has no video in it that can be decoded; send a film with pictures, as H.264 in MP4"
        )
    stream = max(
        moving, key=lambda one: (bool(one.disposition & Disposition.default), one.width * one.height, -one.index)
    )
    codec = stream.codec_context.name
    if codec not in CODECS:
        raise undecodable(shown, f"its codec is {codec}, which is not accepted; send it as H.264 in MP4")
    if not stream.time_base:
        raise undecodable(shown, "its frames have no time; send it as H.264 in MP4")
    return stream


def _not_opened(head: bytes, shown: str, exc: FFmpegError) -> VideoUndecodable:
    for start, what in _OTHERS:
        if head.lstrip().startswith(start):
            return undecodable(shown, what)
    names = ", ".join(sorted(set(FORMATS.values())))
    return undecodable(
        shown, f"it is broken or in none of the accepted formats ({reason_of(exc)}); send one of {names}, webp"
    )


def _refuse(url: str, flags: int, options: Dict[str, str]) -> NoReturn:
    """For a film that names a second file."""
    raise PermissionError("a film may not name other files")
