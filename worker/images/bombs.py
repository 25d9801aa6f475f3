"""How an image file is built: parts that cost a decoder more time than the image's size explains."""

from __future__ import annotations

import re
from typing import Optional, Tuple

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

#: Most scans of a JPEG: progressive ones have about ten; each goes over the whole image, however few bytes it has.
_MAX_SCANS = 100
#: Most bytes between two parts of a JPEG; Pillow looks at each of them.
_MAX_GAP = 65_536
#: A JPEG's next marker, whatever stands before it; those within a scan's own data are none.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)
#: Pages of a TIFF that are counted: Pillow compares the offset of each with those of all before it.
_MOST_PAGES = 1000
#: A TIFF's TileWidth and TileLength (TIFF 6.0, section 15).
_TILE_SIDES = (322, 323)


def jpeg_fault(data: bytes) -> Optional[str]:
    """Why decoding a JPEG would take too long; None if it would not.

    Only markers up to the image's own end count: a preview within it, or a film behind it, has markers, too.
    """
    offset = scans = 0
    kind = None
    while marker := _MARKER.search(data, offset):
        if kind != _SCAN and marker.start() - offset > _MAX_GAP:
            return f"it is a JPEG with more than {_MAX_GAP} bytes of nothing in it"
        offset, kind = marker.end(), marker[0][1]
        if kind == _END:
            break
        if kind not in _WITHOUT_LENGTH:
            offset += int.from_bytes(data[offset : offset + 2], "big")
        scans += kind == _SCAN
        if scans > _MAX_SCANS:
            return f"it is a JPEG of more than {_MAX_SCANS} scans"
    return None


def tile_size(picture: Image.Image) -> Tuple[int, int]:
    """Width and height in pixels of a TIFF's tiles; 1 and 1 if there are none."""
    tags = getattr(picture, "tag_v2", {})
    width, height = (side if isinstance(side := tags.get(tag), int) else 1 for tag in _TILE_SIDES)
    return width, height


def count_frames(picture: Image.Image) -> Tuple[int, bool]:
    """How many frames or pages there are, and whether there are more than were counted."""
    if not isinstance(picture, TiffImageFile):
        return int(getattr(picture, "n_frames", 1)), False
    try:
        for page in range(1, _MOST_PAGES + 1):
            picture._seek(page)  # as Pillow itself counts: what is on a page that is not used does not matter
    except EOFError:
        return page, False
    finally:
        picture.seek(0)
    return _MOST_PAGES, True
