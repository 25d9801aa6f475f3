"""Pictures → a film: H.264 in MP4, encoded by the segment, and put together without being encoded anew."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence, Tuple

import av
import numpy as np

#: Of a film's time stamps, which keep each frame's own time; MPEG-4 part 2 has none finer than 1/65535.
_TIME_BASE = Fraction(1, 60_000)
#: Frames from one key frame to the next at the most, between which players seek.
_GOP = 60
#: H.264 where the library has an encoder, else what every player still reads.
_CODECS = ("libx264", "libopenh264", "mpeg4")
_BT709, _LIMITED = 1, 1


def encode(frames: Iterable[Tuple[np.ndarray, float]], start_s: float, quality: int) -> bytes:
    """Encode a segment; empty if there are no frames.

    Args:
        frames: pictures uint8 (H, W, 3) BGR of one size, of which odd rows or columns at the end are left out, and
            their times in seconds, ascending.
        start_s: the time at which the segment begins, which is 0 in what is encoded.
        quality: 1 to 100, as of a JPEG.
    """
    made = io.BytesIO()
    stream = None
    with av.open(made, "w", format="mp4") as container:
        for pixels, time_s in frames:
            height, width = (side // 2 * 2 for side in pixels.shape[:2])
            if stream is None:
                stream = _stream(container, width, height, quality)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="bgr24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = round((time_s - start_s) / _TIME_BASE), _TIME_BASE
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
    return made.getvalue() if stream is not None else b""


def _stream(container: Any, width: int, height: int, quality: int) -> Any:
    codec = next(name for name in _CODECS if name in av.codecs_available)
    # No B-frames: what is decoded in the order of showing can be joined at any place.
    options = {"preset": "veryfast", "crf": str(round(46 - 0.29 * quality)), "bf": "0"} if codec == "libx264" else {}
    stream = container.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.time_base, context.gop_size, context.thread_count = _TIME_BASE, _GOP, 1  # other slots fill the cores
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    if not options:
        context.bit_rate = int(width * height * 25 * (0.02 + 0.002 * quality))
    return stream


def join_films(parts: Sequence[Tuple[Path, float]], out: Path) -> None:
    """Put films together that :func:`encode` has made.

    Args:
        parts: where they lie, and the times in seconds at which they begin.
        out: is written; what a player needs first stands first in it.

    Raises:
        ValueError: one was encoded otherwise than the first, and would be shown as garbage behind it.
    """
    with av.open(str(out), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream, first = None, None
        for path, start_s in parts:
            with av.open(str(path)) as part:
                source = part.streams.video[0]
                if stream is None:
                    stream, first = container.add_stream_from_template(source), _encoding(source)
                elif _encoding(source) != first:
                    raise ValueError(f"{path.name} was encoded otherwise than {parts[0][0].name}")
                for packet in _moved(part, source, round((start_s - parts[0][1]) / _TIME_BASE)):
                    packet.stream = stream
                    container.mux(packet)


def _encoding(source: Any) -> Tuple[Any, ...]:
    """What films must have in common to be put together as they are."""
    context = source.codec_context
    return context.name, context.width, context.height, context.extradata


def _moved(part: Any, source: Any, ticks: int) -> Iterator[Any]:
    """The packets of a film, as much later."""
    offset = round(ticks * _TIME_BASE / source.time_base)
    for packet in part.demux(source):
        if packet.pts is not None:
            packet.pts += offset
            packet.dts += offset
            yield packet
