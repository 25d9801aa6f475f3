"""What an image file may cost before and beside its pixels: parts that no camera's or scanner's file has so many of.

The limits of this page are also in docs/operations.md, "What an image may cost".
"""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from typing import Any, Dict, Iterator, Tuple

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.MpoImagePlugin import MpoImageFile
from PIL.TiffImagePlugin import TiffImageFile

#: Most bytes and most reads until an image's size is known: Pillow reads each part of a header by itself.
_MOST_HEADER = (16 << 20, 100_000)
#: Most reads from there on: for each 64 KB, each part of a PNG, each strip, tile or block.
_MOST_READS = 600_000
#: Pages of a TIFF and frames of a GIF that are counted.
_MOST_PAGES = 1000
#: What a file may have of each thing.
_MOST: Dict[str, int] = {
    "scans in a JPEG": 64,
    "parts in a JPEG": 10_000,
    "bytes of tables in a JPEG": 1 << 20,
    "parts in a PNG": 200_000,
    "parts beside the pixels of a PNG": 250,
    "parts in a WebP": 10_000,
    "tags in a TIFF": 10_000,
    "numbers in the tags of a TIFF": 1_000_000,
    "fractions in the tags of a TIFF": 10_000,
    "times its own size in its strips": 2,
    "bytes of EXIF data": 1 << 20,
}

#: A JPEG's next marker, whatever stands before it; those within a scan's own data are none.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
#: Markers that Pillow does not skip what follows of.
_WITHOUT_LENGTH = (0x01, 0xC8, 0xD8, _END, *range(0xF0, 0xFE))
#: TIFF 6.0 and EXIF 2.3: bytes of a value by its type, types that are fractions, and tags.
_SIZES = {3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_FRACTIONS = (5, 10)
_DIRECTORIES = (34665, 34853, 40965)
_BYTE_COUNTS = (279, 325)
_TILE_SIDES = (322, 323)


class Costly(Exception):
    """Reading the file would cost more than its pixels explain; its message says why."""


class Reader(io.BytesIO):
    """The file as Pillow reads it: so many bytes, in so many pieces.

    Raises:
        Costly: more was read than was allowed.
    """

    def allow_header(self) -> None:
        """Allow what is read until the image's size is known."""
        size, self._reads = _MOST_HEADER
        start = self.getbuffer()[:8].tobytes()  # some are read as a whole, at once
        whole = len(self.getbuffer()) if start.startswith(b"RIFF") or start.endswith(b"ftyp") else 0
        self._bytes = max(size, 2 * whole)

    def allow_rest(self) -> None:
        """Allow what is read of its pixels, or to count its frames."""
        self._bytes, self._reads = sys.maxsize, _MOST_READS

    def read(self, size: Any = -1) -> bytes:
        """As of any file."""
        data = super().read(size)
        self._bytes, self._reads = self._bytes - len(data), self._reads - 1
        if self._bytes < 0:
            raise Costly(f"it has more than {_MOST_HEADER[0]} bytes in front of its pixels")
        if self._reads < 0:
            raise Costly("it has too many parts")
        return data


def check(data: bytes) -> None:
    """Look at how a file is built, without decoding anything.

    Raises:
        Costly: to decode it takes more time or memory than the size of its image explains.
    """
    for magic, parts in _FORMATS.items():
        if data.startswith(magic):
            counts: Counter[str] = Counter()
            for what, count in parts(data):
                counts[what] += count
                if counts[what] > _MOST[what]:
                    raise Costly(f"it has more than {_MOST[what]} {what}")


def _jpeg(data: bytes) -> Iterator[Tuple[str, int]]:
    """Only markers up to the image's own end count: a preview within it, or a film behind it, has markers, too."""
    offset = scans = 0
    while marker := _MARKER.search(data, offset):
        offset, kind = marker.end(), marker[0][1]
        yield "parts in a JPEG", 1
        if kind == _END and scans:
            return
        if kind in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[offset : offset + 2], "big")
        if kind == 0xE1 and data.startswith(b"Exif", offset + 2):
            yield "bytes of EXIF data", length
        elif kind == _SCAN:
            scans += 1
            yield "scans in a JPEG", 1
        elif not 0xE0 <= kind <= 0xEF and kind != 0xFE:
            yield "bytes of tables in a JPEG", length
        offset += length


def _png(data: bytes) -> Iterator[Tuple[str, int]]:
    """Parts beside the pixels may be packed, and each takes a megabyte of unpacking."""
    offset = 8
    while offset < len(data):
        length, kind = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        yield "parts in a PNG", 1
        if kind not in (b"IDAT", b"fdAT", b"fcTL"):
            yield "parts beside the pixels of a PNG", 1
        if kind == b"eXIf":
            yield "bytes of EXIF data", length
        offset += length + 12


def _webp(data: bytes) -> Iterator[Tuple[str, int]]:
    offset = 12
    while offset < len(data):
        length = int.from_bytes(data[offset + 4 : offset + 8], "little")
        yield "parts in a WebP", 1
        if data.startswith(b"EXIF", offset):
            yield "bytes of EXIF data", length
        offset += 8 + length + length % 2


def _tiff(data: bytes) -> Iterator[Tuple[str, int]]:
    """The first page's directory, and those of EXIF: the others are not read. Strips may all be the same bytes."""
    order, big = ("little" if data.startswith(b"II") else "big"), data[2] == 43

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]

    wide = 8 if big else 4
    directories, seen = [number(8 if big else 4, wide)], set()
    while directories:
        directory = directories.pop()
        if directory in seen:
            continue
        seen.add(directory)
        at = directory + (8 if big else 2)
        tags = number(directory, at - directory)
        yield "tags in a TIFF", tags
        for entry in range(at, min(at + tags * (4 + 2 * wide), len(data)), 4 + 2 * wide):
            tag, kind, count = number(entry, 2), number(entry + 2, 2), number(entry + 4, wide)
            size = _SIZES.get(kind, 0)
            value = entry + 4 + wide if size * count <= wide else number(entry + 4 + wide, wide)
            if size and value + size * count <= len(data):
                yield ("fractions" if kind in _FRACTIONS else "numbers") + " in the tags of a TIFF", count
            if tag in _DIRECTORIES:
                directories.append(number(value, size))
            if tag in _BYTE_COUNTS and kind in (3, 4, 16):
                found = np.frombuffer(data[value : value + size * count], f"{'<>'[order == 'big']}u{size}")
                yield (
                    "times its own size in its strips",
                    int(np.minimum(found, len(data)).sum(dtype=np.float64) // len(data)),
                )


_FORMATS = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG": _png,
    b"RIFF": _webp,
    b"II": _tiff,
    b"MM": _tiff,
}


def tile_size(picture: Image.Image) -> Tuple[int, int]:
    """Width and height in pixels of a TIFF's tiles; 1 and 1 if there are none."""
    tags = getattr(picture, "tag_v2", {})
    width, height = (side if isinstance(side := tags.get(tag), int) else 1 for tag in _TILE_SIDES)
    return width, height


def count_frames(picture: Image.Image, reader: Reader) -> Tuple[int, bool]:
    """How many frames or pages there are, and whether there are more than were counted; `reader` is what it reads."""
    if isinstance(picture, MpoImageFile):  # the others are previews of the first, gain maps, or other eyes' views
        return 1, False
    if not isinstance(picture, (TiffImageFile, GifImageFile)):
        return int(getattr(picture, "n_frames", 1)), False
    # As Pillow itself counts: what is in a frame that is not used does not matter.
    reader.allow_rest()
    update = () if isinstance(picture, TiffImageFile) else (False,)
    frames = 1
    try:
        for frames in range(1, _MOST_PAGES + 1):
            picture._seek(frames, *update)
    except EOFError:
        return frames, False
    except Costly:
        return frames, True
    finally:
        reader.allow_rest()
        picture.seek(0)
    return _MOST_PAGES, True
