"""What an MP4 declares, before FFmpeg makes room for it.

FFmpeg keeps some 36 bytes for each sample that a track declares, also for those of which nothing is there: a file of a
few hundred bytes could ask for gigabytes. The boxes are those of ISO/IEC 14496-12.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Iterator, Tuple

#: Boxes in which FFmpeg looks for others.
_PARENTS = frozenset(
    b"moov trak mdia minf stbl moof traf udta edts dinf mvex tref wave clip matt gmhd iprp ilst".split()
)
#: Boxes that declare samples, and where their count stands after the box's name.
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
#: Boxes looked at, and how deep they may lie.
_MAX_BOXES, _MAX_DEPTH = 1 << 20, 10


def declares_too_much(file: BinaryIO) -> bool:
    """Whether a file has boxes that declare more samples than it has bytes. What is no MP4 has none."""
    size = file.seek(0, os.SEEK_END)
    declared = 0
    for seen, (name, at) in enumerate(_boxes(file, 0, size, 0)):
        if name in _COUNTS:
            file.seek(at + _COUNTS[name])
            declared += int.from_bytes(file.read(4), "big")
        if declared > size or seen > _MAX_BOXES:
            return True
    return False


def _boxes(file: BinaryIO, at: int, end: int, depth: int) -> Iterator[Tuple[bytes, int]]:
    """Names of the boxes between two places, and where what they hold begins."""
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size, name, inner = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if size == 1 and len(head) == 16:
            size, inner = int.from_bytes(head[8:], "big"), at + 16
        elif size == 0:
            size = end - at
        if size < inner - at:
            return
        yield name, inner
        if name in _PARENTS and depth < _MAX_DEPTH:
            yield from _boxes(file, inner, min(at + size, end), depth + 1)
        at += size
