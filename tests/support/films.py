"""Films made for tests: each frame shows its number in coloured blocks, and a disc that moves."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Optional, Sequence, Union

import av
import numpy as np
from PIL import Image

#: Bits of a frame's number that are drawn, the lowest at the left; each block is so many pixels wide and high.
_BITS, _BLOCK = 12, 16
#: Where the blocks stand.
_TOP = 8


def drawn(number: int, width: int = 256, height: int = 192) -> np.ndarray:
    """uint8 (H, W, 3) BGR of a frame. Its upper edge has white and black blocks for the number, its left lower corner
    is red, its right lower corner blue."""
    ys, xs = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), (90, 140, 90), np.uint8)
    x, y = 40 + (number * 5) % (width - 80), height // 2 + int(20 * np.sin(number / 5))
    picture[(xs - x) ** 2 + (ys - y) ** 2 < 18**2] = (40, 200, 220)
    picture[-40:, :40], picture[-40:, -40:] = (0, 0, 255), (255, 0, 0)
    for bit in range(_BITS):
        picture[_TOP : _TOP + _BLOCK, 8 + bit * _BLOCK : 8 + (bit + 1) * _BLOCK] = 255 * (number >> bit & 1)
    return picture


def number_in(picture: np.ndarray) -> int:
    """The number that :func:`drawn` drew."""
    middle = picture[_TOP + _BLOCK // 4 : _TOP + 3 * _BLOCK // 4].mean(axis=(0, 2))
    return sum(int(middle[8 + bit * _BLOCK + _BLOCK // 4 :][: _BLOCK // 2].mean() > 127) << bit for bit in range(_BITS))


def frames(count: int, width: int = 256, height: int = 192) -> Iterator[np.ndarray]:
    return (drawn(number, width, height) for number in range(count))


def make_film(
    path: Union[Path, io.BytesIO],
    pictures: Iterable[np.ndarray],
    *,
    fps: float = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times_s: Optional[Sequence[float]] = None,
    rotation: int = 0,
    audio: bool = False,
    gop: int = 12,
    container: Optional[str] = None,
    options: Optional[Dict[str, str]] = None,
    colour: Optional[int] = None,
) -> Path:
    """Write a film of `pictures`, each uint8 (H, W, 3) BGR.

    Args:
        times_s: when each is shown; as `fps` says, if None.
        rotation: degrees clockwise by which a player turns the film (MP4 only).
        audio: whether a stream of silence goes with it.
        container: FFmpeg's name of the format; as the path's extension says, if None.
        options: the encoder's.
        colour: FFmpeg's number of the matrix that the pixels are coded by, as 1 for BT.709.
    """
    with av.open(path if isinstance(path, io.BytesIO) else str(path), "w", format=container) as output:
        stream: Any = None
        sound: Any = output.add_stream("aac", rate=8000) if audio else None
        base = Fraction(1, 12_800) if times_s is not None else 1 / Fraction(fps).limit_denominator(1001)
        for number, picture in enumerate(pictures):
            if stream is None:
                rate = Fraction(fps).limit_denominator(1001)
                stream = output.add_stream(codec, rate=rate, options=dict(options or {}))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.codec_context.time_base = base
                stream.codec_context.gop_size = gop
                if colour is not None:
                    stream.codec_context.colorspace = colour
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            how: Dict[str, Any] = {} if colour is None else {"dst_colorspace": colour}
            frame = frame.reformat(format=pix_fmt, **how)
            frame.pts = number if times_s is None else round(times_s[number] / base)
            frame.time_base = base
            output.mux(stream.encode(frame))
        if stream is not None:
            output.mux(stream.encode(None))
        if sound is not None:
            _add_silence(output, sound)
    if rotation:
        assert isinstance(path, Path)
        path.write_bytes(rotated(path.read_bytes(), rotation))
    return path if isinstance(path, Path) else Path()


def make_sound(path: Path, cover: Optional[bytes] = None) -> Path:
    """Write a second of silence; with a `cover`, a JPEG, as a record has one (MP3 then)."""
    with av.open(str(path), "w") as output:
        _add_silence(output, output.add_stream("aac" if cover is None else "libmp3lame", rate=8000))
    if cover is not None:
        tag = b"\x00image/jpeg\x00\x03\x00" + cover
        frame = b"APIC" + struct.pack(">I", len(tag)) + b"\x00\x00" + tag
        sizes = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
        path.write_bytes(b"ID3\x03\x00\x00" + sizes + frame + path.read_bytes())
    return path


def _add_silence(output: Any, sound: Any) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 8000, 0
    output.mux(sound.encode(frame))
    output.mux(sound.encode(None))


#: Of MP4's display matrix the four numbers of a turn, in sixteenths of bits.
_TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def rotated(mp4: bytes, degrees: int) -> bytes:
    """An MP4 whose first track's header says that players turn it clockwise."""
    a, b, c, d = (value << 16 for value in _TURNS[degrees])
    at = mp4.index(b"tkhd") + 4 + 40
    return mp4[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + mp4[at + 36 :]


def make_webp(path: Path, pictures: Iterable[np.ndarray], durations_ms: Sequence[int], kind: str = "WEBP") -> Path:
    """Write an animated WebP or GIF; lossless."""
    first, *others = (Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1])) for picture in pictures)
    how: Dict[str, Any] = {"lossless": True, "quality": 0} if kind == "WEBP" else {}
    if not others:
        first.save(path, kind, **how)
        return path
    first.save(path, kind, save_all=True, append_images=others, duration=list(durations_ms), loop=0, **how)
    return path
