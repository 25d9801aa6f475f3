"""What a film is, found without decoding it: its frames, their times, its size.

Declared counts are not believed: every packet is looked at. Only the first frame is decoded, for its true size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, Dict, List, Mapping, Optional

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from worker.video import webp
from worker.video.container import format_of, opened, reason_of, too_large, undecodable

#: Longest side of a film, in pixels, and the largest rotation that a container may state.
_MAX_SIDE = 1 << 16
#: Packets of a broken beginning that are decoded in the hope for a first frame.
_PATIENCE = 300
#: Formats of which each frame is drawn over the last: only their first frame can be decoded by itself.
_DRAWN_OVER = ("gif", "apng")
#: Frames a second of a film that does not say.
_RATE = 25.0


@dataclass(frozen=True)
class Bounds:
    """Beyond these a film is refused, as a whole."""

    max_pixels: int
    max_aspect: float
    max_duration_s: float
    max_frames: int


@dataclass(frozen=True)
class Head:
    """What a reader needs to know of a film; it travels in messages.

    Attributes:
        width, height: pixels, upright.
        rotation: degrees counter-clockwise by which decoded frames are turned to be upright: 0, 90, 180 or 270.
        counted: frames have no time stamps of their own; a frame's `pts` is its number in the order of showing.
    """

    format: str
    width: int
    height: int
    rotation: int
    counted: bool

    def to_message(self) -> Dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Head:
        """The head in a message.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(message, Mapping) or set(message) != set(cls.__dataclass_fields__):
            raise ValueError(f"a film's head has the fields {', '.join(cls.__dataclass_fields__)}")
        sides = (message["width"], message["height"])
        if not all(type(side) is int and 0 < side <= _MAX_SIDE for side in sides):
            raise ValueError("width and height must be whole numbers of pixels")
        if type(message["rotation"]) is not int or message["rotation"] not in (0, 90, 180, 270):
            raise ValueError("rotation must be 0, 90, 180 or 270")
        if type(message["counted"]) is not bool or type(message["format"]) is not str:
            raise ValueError("counted must be true or false, and format a name")
        return cls(**message)


@dataclass(frozen=True)
class Film:
    """What probing found.

    Attributes:
        width, height: pixels, upright, after the rotation that the container states.
        format: ``mp4``, ``matroska``, ``gif``, ``webp`` ...
        codec: the decoder's name, as ``h264``.
        rotation: see :class:`Head`.
        counted: see :class:`Head`.
        pts: int64 (n,), strictly ascending: the time stamp of each frame that is shown, or its number if `counted`.
        times_s: float64 (n,), seconds from the first frame.
        duration_s: seconds from the first frame to the end of the last.
        keys: int64 (k,), ascending: time stamps of the frames at which a decoder may begin. None of them: only at
            the film's beginning.
    """

    width: int
    height: int
    format: str
    codec: str
    rotation: int
    counted: bool
    pts: np.ndarray
    times_s: np.ndarray
    duration_s: float
    keys: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def fps(self) -> float:
        """Mean frames a second."""
        return len(self.pts) / self.duration_s

    def head(self) -> Head:
        return Head(self.format, self.width, self.height, self.rotation, self.counted)


def probe(file: BinaryIO, shown: str, bounds: Bounds) -> Film:
    """What there is to know of a film before its frames are read.

    Args:
        file: open for reading and seekable; stays open.
        shown: the film's name, as people may see it.

    Raises:
        VideoUndecodable: no film in an accepted format, no video in it, or no frame that can be decoded.
        VideoTooLarge: beyond `bounds`.
        OSError: the file cannot be read.
    """
    if webp.is_webp(file):
        return _drawn(file, shown, bounds)
    with opened(file, shown, bounds.max_pixels) as (container, stream):
        _check_size(stream.codec_context.width, stream.codec_context.height, shown, bounds)
        codec, name = stream.codec_context.name, format_of(container)
        # AVI numbers packets in the order of decoding: with B-frames that is not when they are shown.
        reordered = bool(stream.codec_context.has_b_frames)
        packets = _packets(container, stream, shown, bounds)
        if not len(packets.pts):
            raise undecodable(shown, "it has no frames; send a whole film")
        base = float(stream.time_base or 0)
        rate = float(stream.average_rate or stream.guessed_rate or _RATE)
    first = _first_frame(file, shown, bounds)
    _check_size(first.width, first.height, shown, bounds)
    rotation = round(first.rotation / 90) * 90 % 360
    width, height = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
    pts, last = packets.pts, packets.last
    counted = packets.counted or (name == "avi" and reordered)
    if counted:
        pts, base, last = np.arange(len(pts), dtype=np.int64), 1 / (rate if 0 < rate <= 1e4 else _RATE), 1
    times = (pts - pts[0]) * base
    if last <= 0:
        last = int(np.median(np.diff(pts))) if len(pts) > 1 else 1
    duration = float(times[-1] + last * base)
    _check_duration(duration, shown, bounds)
    keys = packets.keys[:0] if counted or name in _DRAWN_OVER else packets.keys
    return Film(width, height, name, codec, rotation, counted, pts, times, duration, keys)


@dataclass(frozen=True)
class _Packets:
    """Of each frame its time stamp; of the last frame its length; both in units of the stream's time base."""

    pts: np.ndarray
    keys: np.ndarray
    last: int
    counted: bool


def _packets(container: InputContainer, stream: VideoStream, shown: str, bounds: Bounds) -> _Packets:
    stamps: List[Optional[int]] = []
    keys: List[int] = []
    durations: Dict[int, int] = {}
    vp8 = stream.codec_context.name in ("vp8", "libvpx")
    try:
        for packet in container.demux(stream):
            if not is_frame(packet, vp8):
                continue
            stamps.append(packet.pts)
            if len(stamps) > bounds.max_frames:
                raise too_large(shown, f"it has more than {bounds.max_frames} frames")
            if packet.pts is not None:
                durations[packet.pts] = packet.duration or 0
                if packet.is_keyframe:
                    keys.append(packet.pts)
    except FFmpegError:
        pass  # a broken end: the film is what comes before
    known = sorted(stamp for stamp in set(stamps) if stamp is not None)
    counted = len(known) < len(stamps)
    # FFmpeg hands on what time stamps a file states. No film lasts 2⁵³ units, and those are exact in floating point.
    if not counted and known and max(abs(known[0]), abs(known[-1])) >= 1 << 52:
        counted = True
    if counted:
        return _Packets(np.arange(len(stamps), dtype=np.int64), np.empty(0, np.int64), 0, True)
    last = durations[known[-1]] if known else 0
    return _Packets(np.array(known, np.int64), np.array(sorted(set(keys)), np.int64), last, False)


def is_frame(packet: Packet, vp8: bool) -> bool:
    """Whether a packet brings a frame that is shown: an edit list cuts some off, and VP8 has hidden ones."""
    if not packet.size or packet.is_discard:
        return False
    return not vp8 or bool(bytes(packet)[0] & 0x10)


def _first_frame(file: BinaryIO, shown: str, bounds: Bounds) -> VideoFrame:
    reason = "nothing in it decodes"
    with opened(file, shown, bounds.max_pixels) as (container, stream):
        demuxed = 0
        try:
            for packet in container.demux(stream):
                try:
                    for frame in stream.codec_context.decode(packet if packet.size else None):
                        return frame
                except FFmpegError as exc:
                    reason = reason_of(exc)
                demuxed += 1
                if demuxed > _PATIENCE or not packet.size:
                    break
        except FFmpegError as exc:
            reason = reason_of(exc)
    raise undecodable(shown, f"none of its first frames can be decoded ({reason}); send a whole film")


def _drawn(file: BinaryIO, shown: str, bounds: Bounds) -> Film:
    """An animated WebP, which FFmpeg does not read."""
    width, height, durations = webp.durations_ms(file, shown, bounds.max_frames)
    _check_size(width, height, shown, bounds)
    ends = np.cumsum(np.array(durations, np.int64))
    pts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    _check_duration(ends[-1] / 1000, shown, bounds)
    webp.check_first_frame(file, shown)
    nothing = np.empty(0, np.int64)
    return Film(width, height, "webp", "webp", 0, False, pts, pts / 1000, float(ends[-1] / 1000), nothing)


def _check_size(width: int, height: int, shown: str, bounds: Bounds) -> None:
    if not width or not height:
        raise undecodable(shown, "it states no size and no frame of it can be decoded; send a whole film")
    if width * height > bounds.max_pixels or max(width, height) > _MAX_SIDE:
        raise too_large(shown, f"its frames have {width}×{height} pixels, of which {bounds.max_pixels} are admitted")
    if max(width, height) > bounds.max_aspect * min(width, height):
        raise too_large(shown, f"its frames of {width}×{height} pixels are longer than {bounds.max_aspect:g} to 1")


def _check_duration(duration_s: float, shown: str, bounds: Bounds) -> None:
    if duration_s > bounds.max_duration_s:
        raise too_large(shown, f"it lasts {duration_s:.0f} s, of which {bounds.max_duration_s:g} are admitted")
