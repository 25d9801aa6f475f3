"""Animated WebP, which FFmpeg does not read: its frames' lengths from its chunks, its pictures by Pillow.

The chunks are those of https://developers.google.com/speed/webp/docs/riff_container
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Iterator, List, Tuple

import numpy as np
from PIL import Image

from worker.video.container import reason_of, too_large, undecodable

#: Frames that are to be shown for no time, or for next to none, are shown so long by browsers, in ms.
_SHORTEST_MS, _INSTEAD_MS = 10, 100


def is_webp(file: BinaryIO) -> bool:
    file.seek(0)
    start = file.read(12)
    return start[:4] == b"RIFF" and start[8:] == b"WEBP"


def durations_ms(file: BinaryIO, shown: str, max_frames: int) -> Tuple[int, int, List[int]]:
    """Width, height, and of each frame how long it is shown; nothing is decoded. A still image is one frame.

    Raises:
        VideoUndecodable: it has no frames.
        VideoTooLarge: it has more than `max_frames`.
    """
    width = height = 0
    found: List[int] = []
    for name, head in _chunks(file):
        if name == b"VP8X" and len(head) >= 10:
            width, height = 1 + _uint24(head, 4), 1 + _uint24(head, 7)
        elif name == b"ANMF" and len(head) >= 16:
            duration = _uint24(head, 12)
            found.append(duration if duration > _SHORTEST_MS else _INSTEAD_MS)
            if len(found) > max_frames:
                raise too_large(shown, f"it has more than {max_frames} frames")
        elif name == b"VP8 " and len(head) >= 10 and not found:
            low, high = struct.unpack_from("<HH", head, 6)
            width, height = width or low & 0x3FFF, height or high & 0x3FFF
            found.append(_INSTEAD_MS)
        elif name == b"VP8L" and len(head) >= 5 and not found:
            bits = struct.unpack_from("<I", head, 1)[0]
            width, height = width or 1 + (bits & 0x3FFF), height or 1 + (bits >> 14 & 0x3FFF)
            found.append(_INSTEAD_MS)
    if not found:
        raise undecodable(shown, "it has no frames; send a whole film")
    return width, height, found


def check_first_frame(file: BinaryIO, shown: str) -> None:
    """See that its first frame can be decoded.

    Raises:
        VideoUndecodable: it cannot.
    """
    try:
        next(frames(file))
    except StopIteration as exc:
        raise undecodable(shown, "its first frame cannot be decoded; send a whole film") from exc
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, Image.DecompressionBombError) as exc:
        raise undecodable(shown, f"its first frame cannot be decoded ({reason_of(exc)}); send a whole film") from exc


def frames(file: BinaryIO) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) BGR of each frame, from the first; raises what Pillow does where it is broken."""
    file.seek(0)
    with Image.open(file, formats=("WEBP",)) as picture:
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            yield np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])


def _chunks(file: BinaryIO) -> Iterator[Tuple[bytes, bytes]]:
    """Names of the chunks, and what each begins with."""
    at = 12
    while True:
        file.seek(at)
        start = file.read(8 + 16)
        if len(start) < 8:
            return
        yield start[:4], start[8:]
        size = struct.unpack_from("<I", start, 4)[0]
        at += 8 + size + size % 2


def _uint24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")
