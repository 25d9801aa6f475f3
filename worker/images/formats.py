"""Which formats are decoded, whatever a file is called. Nothing here fetches, scripts or calls another program."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Optional

from PIL import Image, UnidentifiedImageError, features

from worker.images import jxl
from worker.images.bombs import Reader

#: What Pillow finds out by itself, and all that is decoded.
_PLAIN = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
FORMATS = (*_PLAIN, "AVIF", "HEIF", "JXL")
#: ISO/IEC 23008-12, "brands": what says that a file of boxes is an image.
_AVIF = {b"avif", b"avis"}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
#: Most brands that are looked at.
_BRANDS = 64
#: What decodes the other formats, and its module; deploy/requirements-formats.txt installs both.
_PLUGINS = {"HEIF": ("HEIC/HEIF", "pillow_heif"), "JXL": ("JPEG XL", "pillow_jxl")}


class Unknown(Exception):
    """No format that is decoded here; its message says which it is, or which there are."""


def kind_of(data: bytes) -> Optional[str]:
    """``AVIF``, ``HEIF`` or ``JXL``, by the file's first bytes; None: Pillow finds out."""
    if data.startswith((jxl.CONTAINER, jxl.STREAM)):
        return "JXL"
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 16 + 4 * _BRANDS, len(data))
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF:
        return "AVIF"
    return "HEIF" if brands & _HEIF else None


def open_picture(data: bytes, kind: Optional[str], reader: Reader) -> Image.Image:
    """Open the image, which :func:`kind_of` has looked at, without decoding anything; not for JPEG XL.

    Raises:
        Unknown: it is no image, or one of a format that cannot be decoded.
    """
    try:
        if kind == "HEIF":
            _register_heif()
        return Image.open(reader, formats=(kind,) if kind else _PLAIN)
    except UnidentifiedImageError as exc:
        raise Unknown(f"it is not an image in {', '.join(FORMATS)}") from exc


def need(kind: Optional[str]) -> None:
    """Raises Unknown if what decodes `kind` is not installed."""
    if kind == "AVIF" and not features.check("avif"):
        raise Unknown("it is AVIF, which this worker's Pillow does not read; install Pillow's own wheel, 11.3 or later")
    title, module = _PLUGINS.get(kind or "", ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise Unknown(
            f"it is {title}, which this worker does not read; run pip install -r deploy/requirements-formats.txt there"
        )


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener

    # The other slots fill the cores; and nothing but the image itself is looked at.
    register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
