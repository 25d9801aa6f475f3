"""JPEG XL (ISO/IEC 18181), by pillow-jxl-plugin's decoder.

The plugin decodes the whole file before it tells the size, so the size is read here first. The decoder gets nothing
but the codestream: what else a file may hold, such as packed metadata or a whole JPEG, is not unpacked. The decoder
turns the image as the codestream says; the standard has EXIF's orientation ignored.
"""

from __future__ import annotations

from typing import Tuple

from PIL import Image

#: What a file begins with: as a container of boxes, or as a codestream alone.
CONTAINER, STREAM = b"\x00\x00\x00\x0cJXL \r\n\x87\n", b"\xff\x0a"
#: Most boxes, of which a photograph has about ten.
_MOST_BOXES = 1000
#: Part 1, annex D ("SizeHeader"): bits of a side, by a selector of two bits; ratios of width to height, from 1 on.
_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def codestream(data: bytes) -> bytes:
    """The codestream of the file `data`.

    Raises:
        ValueError: it has none.
    """
    if not data.startswith(CONTAINER):
        return data
    parts, at, boxes = [], 0, 0
    while at + 8 <= len(data) and boxes < _MOST_BOXES:
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        end = at + size if size else len(data)  # 0: up to the end of the file
        if kind == b"jxlc":
            parts.append(data[at + head : end])
        elif kind == b"jxlp":  # a piece, behind its number
            parts.append(data[at + head + 4 : end])
        at, boxes = max(end, at + head), boxes + 1
    stream = b"".join(parts)
    if not stream.startswith(STREAM):
        raise ValueError("it holds no codestream")
    return stream


def size_of(stream: bytes) -> Tuple[int, int]:
    """Width and height in pixels of a codestream, before it is turned."""
    bits = int.from_bytes(stream[2:18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take(_BITS[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio:
        over, under = _RATIOS[ratio - 1]
        return height * over // under, height
    return side(), height


def decode(stream: bytes) -> Image.Image:
    """The image, upright; of an animation its first frame.

    Raises:
        ImportError: pillow-jxl-plugin is not installed.
        ValueError: its header and its pixels disagree.
        Exception: of whatever kind the decoder has, for a stream that is damaged.
    """
    from pillow_jxl import Decoder

    try:
        _, info, pixels, _, _ = Decoder(num_threads=0)(stream)  # the other slots fill the cores
    except RuntimeError as exc:  # its text is for those who build the library
        raise ValueError("its codestream is damaged") from exc
    size = (info.width, info.height)
    if size not in (size_of(stream), size_of(stream)[::-1]):
        raise ValueError("its parts disagree on its size")
    return Image.frombytes("F" if info.mode == "F;16" else info.mode, size, pixels)  # which the plugin has widened
