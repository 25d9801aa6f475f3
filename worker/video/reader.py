"""The frames of a segment, upright and in colour, whoever reads them and however the film was cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import BinaryIO, Dict, Iterator, List, Optional, Tuple

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from worker.video import webp
from worker.video.container import opened
from worker.video.film import Bounds, Head
from worker.video.plan import Segment

#: Seconds before a key frame at which it is looked for, in turn, where the container does not seek exactly.
_BACK_S = (0.0, 2.0, 20.0, math.inf)


@dataclass(frozen=True)
class Frame:
    """One picture of a film.

    Attributes:
        number: in the film, from 0.
        time_s: seconds from the film's first frame.
        pixels: uint8 (H, W, 3) BGR, contiguous, upright, of the film's size.
    """

    number: int
    time_s: float
    pixels: np.ndarray


class Frames:
    """The frames of a segment, to be iterated over once.

    Attributes:
        missing: numbers of the frames that were not there or broken; complete when the iteration has ended.
    """

    def __init__(self, file: BinaryIO, head: Head, segment: Segment, shown: str, bounds: Bounds) -> None:
        self._file, self._head, self._segment, self._shown, self._bounds = file, head, segment, shown, bounds
        self.missing: List[int] = []

    def __iter__(self) -> Iterator[Frame]:
        segment = self._segment
        places = {stamp: place for place, stamp in enumerate(segment.pts)}
        found = 0
        for place, pixels in self._pixels(places):
            self.missing += map(segment.frame_number, range(found, place))
            found = place + 1
            yield Frame(segment.frame_number(place), segment.times_s[place], pixels)
        self.missing += map(segment.frame_number, range(found, len(segment.pts)))

    def _pixels(self, places: Dict[int, int]) -> Iterator[Tuple[int, np.ndarray]]:
        """Places in the segment, ascending, and the pictures at them."""
        if self._head.format == "webp":
            yield from self._drawn(places)
            return
        starts: Tuple[Optional[int], ...] = self._segment.starts or (None,)
        for start in starts:
            last = start == starts[-1]
            any_ = False
            for place, pixels in self._decoded(places, start):
                # Frames of another key frame's are missing where this one was none; the one before may lead to them.
                if not any_ and place and not last:
                    break
                any_ = True
                yield place, pixels
            if any_:
                return

    def _drawn(self, places: Dict[int, int]) -> Iterator[Tuple[int, np.ndarray]]:
        place = 0
        try:
            for number, pixels in enumerate(webp.frames(self._file)):
                if number == self._segment.frame_number(place):
                    yield place, pixels
                    place += 1
                if place == len(places):
                    return
        except (OSError, ValueError, EOFError, SyntaxError, MemoryError, Image.DecompressionBombError):
            return  # the rest is missing

    def _decoded(self, places: Dict[int, int], start: Optional[int]) -> Iterator[Tuple[int, np.ndarray]]:
        """As :meth:`_pixels`, decoded from the key frame at `start` on; from the film's beginning, if it is None."""
        for back_s in (0.0,) if start is None else _BACK_S:
            with opened(self._file, self._shown, self._bounds.max_pixels) as (container, stream):
                first = None if start is None else _sought(container, stream, start, back_s)
                if start is None or first is not None:
                    yield from self._wanted(_frames(container, stream, first), places)
                    return

    def _wanted(self, frames: Iterator[VideoFrame], places: Dict[int, int]) -> Iterator[Tuple[int, np.ndarray]]:
        final, past = self._segment.pts[-1], -1
        for number, frame in enumerate(frames):
            stamp = number if self._head.counted else frame.pts
            if stamp is None:
                continue
            place = places.get(stamp, -1)
            if place > past:
                try:
                    pixels = self._upright(frame)
                except (FFmpegError, ValueError):
                    continue
                past = place
                yield place, pixels
            if stamp >= final:
                return

    def _upright(self, frame: VideoFrame) -> np.ndarray:
        """A frame's pixels, scaled to the film's size if its own is another: films may change it midway."""
        head = self._head
        turned = head.rotation % 180 != 0
        width, height = (head.height, head.width) if turned else (head.width, head.height)
        pixels = frame.to_ndarray(format="bgr24", width=width, height=height)
        return np.ascontiguousarray(np.rot90(pixels, head.rotation // 90))


def read_frames(file: BinaryIO, head: Head, segment: Segment, shown: str, bounds: Bounds) -> Frames:
    """The frames of a segment, in order. A broken frame is left out, and its number stands in `missing`.

    Args:
        file: the film that was probed, open for reading and seekable; stays open. No other reads from it meanwhile.
        shown: the film's name, as people may see it.

    Raises:
        VideoUndecodable: when iterated over: it is no film any more.
        OSError: when iterated over: the file cannot be read.
    """
    return Frames(file, head, segment, shown, bounds)


def _sought(container: InputContainer, stream: VideoStream, start: int, back_s: float) -> Optional[Packet]:
    """The packet of the key frame at `start`, so that what follows is next; None: seeking did not lead to it.

    It is asked for `back_s` seconds before, for some containers seek to what comes after; if infinite, it is looked for
    from the beginning.
    """
    try:
        if back_s != math.inf:
            container.seek(start - int(back_s / float(stream.time_base or 1)), stream=stream)
        for packet in container.demux(stream):
            if packet.pts == start and packet.size:
                return packet
            if packet.dts is not None and packet.dts > start:
                return None
    except FFmpegError:
        pass
    return None


def _frames(container: InputContainer, stream: VideoStream, first: Optional[Packet]) -> Iterator[VideoFrame]:
    """What the decoder makes of `first` and the packets after it; it goes on after those that are broken."""
    try:
        if first is not None:
            yield from _decoded(stream, first)
        for packet in container.demux(stream):
            if packet.size:
                yield from _decoded(stream, packet)
    except FFmpegError:
        pass  # a broken end
    yield from _decoded(stream, None)


def _decoded(stream: VideoStream, packet: Optional[Packet]) -> List[VideoFrame]:
    try:
        return stream.codec_context.decode(packet)
    except FFmpegError:
        return []
