"""Images of few pixels or none in files of any size, built so that a decoder works for minutes or fills the memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Callable, Dict

from PIL import Image

_SIDE = 16


def _saved(kind: str, side: int = _SIDE, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **options)
    return file.getvalue()


def _filled(piece: bytes, size: int) -> bytes:
    return piece * max(1, size // len(piece))


# JPEG: SOI, what is filled in, and the rest.


def _jpeg(filling: bytes, **options: Any) -> bytes:
    data = _saved("JPEG", **options)
    return data[:2] + filling + data[2:]


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _jpeg_scans(size: int) -> bytes:
    data = _saved("JPEG", 8000, progressive=True, subsampling=0)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * 80 + data[-2:]


def _jpeg_hidden(size: int) -> bytes:
    """Comments within what follows a marker that some readers skip and others do not."""
    return _jpeg(_filled(_segment(0xF0, _filled(_segment(0xFE, b""), 60_000)), size))


def _exif(size: int) -> bytes:
    """A directory of one orientation of very many fractions."""
    count = size // 8
    entry = struct.pack("<HHII", 0x0112, 5, count, 26)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + struct.pack("<II", 1, 3) * count


def _jpeg_exif(size: int) -> bytes:
    data = _exif(size)
    parts = [_segment(0xE1, b"Exif\0\0" + data[start : start + 65_000]) for start in range(0, len(data), 65_000)]
    return _jpeg(b"".join(parts))


# PNG


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(before: bytes = b"", pixels: bytes = b"", after: bytes = b"", *, side: int = _SIDE, depth: int = 8) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0))
    pixels = pixels or _chunk(b"IDAT", zlib.compress(bytes(side * (1 + side * depth // 8))))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + _chunk(b"IEND")


def _packed_text(kind: bytes, head: bytes) -> bytes:
    return _chunk(kind, head + zlib.compress(b"\xff" * 1_000_000, 9))


def _png_empty_blocks(size: int) -> bytes:
    """Pixels after very many blocks of deflate that have none."""
    pixels = zlib.compress(bytes(_SIDE * (_SIDE + 1)), 0)
    return _png(pixels=_chunk(b"IDAT", pixels[:2] + _filled(b"\0\0\0\xff\xff", size) + pixels[2:]))


def _png_frames(size: int) -> bytes:
    frame = struct.pack(">IIIIHHBB", 1, 1, 0, 0, 1, 1, 0, 0)
    parts, number, pixel = [], 1, zlib.compress(b"\0\0")
    for number in range(1, max(3, size // 90), 2):
        parts += [
            _chunk(b"fcTL", struct.pack(">I", number) + frame),
            _chunk(b"fdAT", struct.pack(">I", number + 1) + pixel),
        ]
    first = _chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, _SIDE, _SIDE, 0, 0, 1, 1, 0, 0))
    return _png(_chunk(b"acTL", struct.pack(">II", 1 << 30, 0)) + first, after=b"".join(parts))


# GIF

_PIXEL = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00"
_SCREEN = b"GIF89a\x10\0\x10\0\x80\0\0" + bytes(6)


def _gif(before: bytes = b"", codes: bytes = b"\x02\x44\x01\x00", after: bytes = b"") -> bytes:
    return _SCREEN + before + _PIXEL + b"\x02" + codes + after + b"\x3b"


# TIFF


def _tiff(tags: Dict[int, Any], data: bytes = b"\0" * 16, *, big: bool = False, next_page: int = 0) -> bytes:
    """Little-endian, of grey pixels: `tags` are (type, count, value or offset); `data` begins at 16."""
    all_tags = {256: (4, 1, _SIDE), 257: (4, 1, _SIDE), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), **tags}
    wide, first = ("Q" if big else "I"), 16 + len(data) + len(data) % 2
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", first) if big else b"II*\0" + struct.pack("<I", first) + bytes(8)
    entries = b"".join(struct.pack(f"<HH{wide}{wide}", tag, *all_tags[tag]) for tag in sorted(all_tags))
    count = struct.pack("<Q" if big else "<H", len(all_tags))
    return head + data.ljust(first - 16, b"\0") + count + entries + struct.pack(f"<{wide}", next_page)


def _tiff_same_strips(size: int, compression: int = 5) -> bytes:
    """Very many strips, each of which is the whole file."""
    strips, body = 40_000, b"\x80\x40\x20\x10\x08\x04\x02\x01" * (size // 8)  # LZW: clear, clear, clear
    arrays = struct.pack("<I", 16 + 8 * strips) * strips + struct.pack("<I", len(body)) * strips
    sizes = {256: (4, 1, 400), 257: (4, 1, strips), 259: (3, 1, compression), 278: (4, 1, 1)}
    return _tiff({**sizes, 273: (4, strips, 16), 279: (4, strips, 16 + 4 * strips)}, arrays + body)


def _tiff_values(size: int, tag: int, kind: int, width: int) -> bytes:
    strip = {273: (4, 1, 16), 278: (4, 1, _SIDE), 279: (4, 1, 256)}
    return _tiff({**strip, tag: (kind, size // width, 272)}, bytes(256) + struct.pack("<II", 1, 3) * (size // 8))


def _tiff_exif(size: int) -> bytes:
    count = size // 8
    directory = struct.pack("<HHHIII", 1, 37386, 5, count, 290, 0)
    strip = {273: (4, 1, 16), 278: (4, 1, _SIDE), 279: (4, 1, 256), 34665: (4, 1, 272)}
    return _tiff(strip, bytes(256) + directory + struct.pack("<II", 1, 3) * count)


def _tiff_tags(size: int) -> bytes:
    """A BigTIFF whose directory fills the file with one tag."""
    count = size // 20
    data = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + struct.pack("<Q", count)
    return data + struct.pack("<HHQQ", 256, 4, 1, _SIDE) * count + bytes(8)


def _tiff_pages(size: int) -> bytes:
    """Directories of 65535 entries that overlap."""
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, 16) for tag in range(256, 48_000))
    data = bytearray(_tiff({273: (4, 1, 16), 278: (4, 1, _SIDE), 279: (4, 1, 256)}, bytes(256)))
    for _page in range(max(1, min(size // len(tags), 999))):
        data[-4:] = struct.pack("<I", len(data))
        data += struct.pack("<H", 47_744) + tags + bytes(4)
    return bytes(data)


# WebP and BMP


def _webp(part: bytes, size: int) -> bytes:
    simple = _saved("WEBP", lossless=True)
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x08" + bytes(3) + struct.pack("<I", _SIDE - 1)[:3] * 2
    body = b"WEBP" + extended + simple[12:] + _filled(part, size)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_frames(size: int) -> bytes:
    still = _saved("WEBP", 1, lossless=True)[12:]
    frame = b"ANMF" + struct.pack("<I", 16 + len(still)) + bytes(16) + still
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02" + bytes(3) + struct.pack("<I", 7999)[:3] * 2
    body = b"WEBP" + extended + b"ANIM" + struct.pack("<I", 6) + bytes(6) + _filled(frame, size)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bmp(stream: bytes, side: int = 8000, bits: int = 8) -> bytes:
    palette = bytes(range(256)) * 4 if bits == 8 else bytes(range(64))
    start = 54 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, bits, 2 if bits == 4 else 1, len(stream), 0, 0, 1 << bits, 0)
    return b"BM" + struct.pack("<IHHI", start + len(stream), 0, 0, start) + head + palette + stream


#: What makes a file of about so many bytes.
COSTLY: Dict[str, Callable[[int], bytes]] = {
    "jpeg of empty comments": lambda size: _jpeg(_filled(_segment(0xFE, b""), size)),
    "jpeg of empty parts": lambda size: _jpeg(_filled(_segment(0xE5, b""), size)),
    "jpeg of comments": lambda size: _jpeg(_filled(_segment(0xFE, bytes(65_000)), size)),
    "jpeg of starts": lambda size: _jpeg(_filled(b"\xff\xd8", size)),
    "jpeg of ends": lambda size: _jpeg(b"\xff\xd9" + _filled(_segment(0xFE, b""), size)),
    "jpeg of hidden comments": _jpeg_hidden,
    "jpeg of junk": lambda size: _jpeg(_filled(b"\0" * 60_000 + _segment(0xFE, b""), size)),
    "jpeg of tables": lambda size: _jpeg(_filled(_segment(0xDB, (b"\0" + bytes(range(64))) * 1000), size)),
    "jpeg of frames": lambda size: _jpeg(_filled(_segment(0xC0, b"\x08\0\x10\0\x10\x03" + b"\1\x11\0" * 21_000), size)),
    "jpeg of profiles": lambda size: _jpeg(_filled(_segment(0xE2, b"ICC_PROFILE\0\1\1"), size)),
    "jpeg of resources": lambda size: _jpeg(
        _filled(_segment(0xED, b"Photoshop 3.0\0" + (b"8BIM\4\4" + bytes(6)) * 5000), size)
    ),
    "jpeg of exif": _jpeg_exif,
    "jpeg of scans": _jpeg_scans,
    "jpeg of restarts": lambda size: _saved("JPEG")[:-2] + _filled(b"\xff\xd0", size) + b"\xff\xd9",
    "png of empty parts": lambda size: _png(_filled(_chunk(b"prVt"), size)),
    "png of empty pixels": lambda size: _png(_filled(_chunk(b"IDAT"), size)),
    "png of empty parts behind": lambda size: _png(after=_filled(_chunk(b"prVt"), size)),
    "png of empty blocks": _png_empty_blocks,
    "png of packed texts": lambda size: _png(_filled(_packed_text(b"zTXt", b"\0\0"), size)),
    "png of packed international texts": lambda size: _png(_filled(_packed_text(b"iTXt", b"a\0\1\0\0\0"), size)),
    "png of packed texts behind": lambda size: _png(after=_filled(_packed_text(b"iTXt", b"a\0\1\0\0\0"), size)),
    "png of profiles": lambda size: _png(_filled(_packed_text(b"iCCP", b"a\0\0"), size)),
    "png of one text": lambda size: _png(_chunk(b"tEXt", b"a\0" + bytes(size))),
    "png of exif": lambda size: _png(_chunk(b"eXIf", _exif(size))),
    "png of transparency": lambda size: _png(_chunk(b"tRNS", b"\xff" * size)),
    "png of frames": _png_frames,
    "gif of one comment": lambda size: _gif(b"\x21\xfe" + _filled(b"\xff" + bytes(255), size) + b"\0"),
    "gif of short comment blocks": lambda size: _gif(b"\x21\xfe" + _filled(b"\1a", size) + b"\0"),
    "gif of comments": lambda size: _gif(_filled(b"\x21\xfe\1a\0", size)),
    "gif of applications": lambda size: _gif(_filled(b"\x21\xff\x0bNETSCAPE2.0\0", size)),
    "gif of controls": lambda size: _gif(_filled(b"\x21\xf9\4\0\0\0\0\0", size)),
    "gif of junk": lambda size: _gif(_filled(b"\1", size)),
    "gif of short blocks": lambda size: _gif(codes=_filled(b"\1\x24", size) + b"\0"),
    "gif of clear codes": lambda size: _gif(codes=_filled(b"\xff" + b"\x24\x49\x92" * 85, size) + b"\0"),
    "gif of frames": lambda size: _gif(after=_filled(_PIXEL + b"\2\2\x44\1\0", size)),
    "gif of comments behind": lambda size: _gif(after=_filled(b"\x21\xfe\1a\0", size) + _PIXEL + b"\2\2\x44\1\0"),
    "webp of empty parts": lambda size: _webp(b"prVt\0\0\0\0", size),
    "webp of exif": lambda size: _webp(b"EXIF" + struct.pack("<I", len(_exif(size))) + _exif(size), 1),
    "webp of frames": _webp_frames,
    "bmp of nothing": lambda size: _bmp(b"\1\0"),
    "bmp of short lines": lambda size: _bmp(b"\1\1\0\0" * 8000 + b"\0\1"),
    "bmp of empty lines": lambda size: _bmp(_filled(b"\0\0", size), 7999),
    "bmp of empty steps": lambda size: _bmp(_filled(b"\0\2\0\0", size)),
    "bmp of steps": lambda size: _bmp(_filled(b"\0\2\xff\0", size)),
    "bmp of short runs": lambda size: _bmp(_filled(b"\1\1", size)),
    "bmp of short runs of 4 bits": lambda size: _bmp(_filled(b"\1\1", size), bits=4),
    "bmp of long runs of 4 bits": lambda size: _bmp(_filled(b"\xff\1", size), bits=4),
    "bmp of escapes": lambda size: _bmp(_filled(b"\0\3\1\2\3\0", size)),
    "tiff of equal strips": _tiff_same_strips,
    "tiff of equal packed strips": lambda size: _tiff_same_strips(size, 32773),
    "tiff of fractions": lambda size: _tiff_values(size, 282, 5, 8),
    "tiff of numbers": lambda size: _tiff_values(size, 258, 3, 2),
    "tiff of strange numbers": lambda size: _tiff_values(size, 700, 6, 1),
    "tiff of exif": _tiff_exif,
    "tiff of tags": _tiff_tags,
    "tiff of pages": _tiff_pages,
}
