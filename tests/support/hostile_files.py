"""Files as strangers send them: generated ones of every kind, and valid ones that were damaged by a seed."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
from PIL import Image, ImageCms

#: What an image of no format is, in bytes.
_NOT_IMAGES: Dict[str, bytes] = {
    "empty": b"",
    "one byte": b"\xff",
    "zeros": bytes(5000),
    "text": b"no image\n" * 99,
    "script": b"#!/bin/sh\nexit 1\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "pdf": b"%PDF-1.7\n1 0 obj<<>>endobj\n",
    "pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "archive": b"PK\x03\x04" + bytes(60),
    "xpm": b'/* XPM */\nstatic char *a[] = {"1 1 1 1", "a c #ffffff", "a"};\n',
    "ppm": b"P6\n2 2\n255\n" + bytes(12),
    "ico": b"\x00\x00\x01\x00\x01\x00" + bytes(64),
}
#: The longest side of valid ones that are to be damaged.
_SIDE = 48


def _noise(random_: random.Random, height: int, width: int, channels: int = 3) -> np.ndarray:
    pixels = np.frombuffer(random_.randbytes(height * width * channels), np.uint8)
    return pixels.reshape((height, width, channels) if channels > 1 else (height, width))


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def valid_images(random_: random.Random) -> Dict[str, bytes]:
    """Whole images by name; each of these is to be decoded."""
    picture = Image.fromarray(_noise(random_, 32, _SIDE))
    others = [Image.fromarray(_noise(random_, 32, _SIDE)) for _ in range(3)]
    grey = Image.fromarray(_noise(random_, 32, _SIDE, 1))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112] = 6
    more = {"save_all": True, "append_images": others}
    images = {
        **{kind.lower(): _saved(picture, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")},
        **{f"{kind.lower()} turned": _saved(picture, kind, exif=turned) for kind in ("JPEG", "PNG", "WEBP", "TIFF")},
        **{f"{kind.lower()} profile": _saved(picture, kind, icc_profile=profile) for kind in ("JPEG", "PNG", "WEBP")},
        **{f"{kind.lower()} frames": _saved(picture, kind, **more) for kind in ("GIF", "PNG", "WEBP", "TIFF")},
        **{f"{kind.lower()} cmyk": _saved(picture.convert("CMYK"), kind) for kind in ("JPEG", "TIFF")},
        **{f"{kind.lower()} 16 bit": _saved(deep, kind) for kind in ("PNG", "TIFF")},
        **{f"{kind.lower()} one pixel": _saved(picture.crop((0, 0, 1, 1)), kind) for kind in ("JPEG", "PNG", "BMP")},
        "jpeg progressive": _saved(picture, "JPEG", progressive=True),
        "png alpha": _saved(picture.convert("RGBA"), "PNG"),
        "png palette": _saved(picture.convert("P"), "PNG"),
        "png 1 bit": _saved(picture.convert("1"), "PNG"),
        "tiff float": _saved(grey.convert("F"), "TIFF"),
        **{f"tiff {name}": _saved(picture, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits")},
    }
    images["jpeg wrong profile"] = _saved(picture, "JPEG", icc_profile=random_.randbytes(300))
    return images


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (_chunk(b"IHDR", header), *more, _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    )


def refused_images(random_: random.Random) -> Dict[str, bytes]:
    """Bombs, headers that lie and extreme shapes, by name; none of these is to be decoded."""
    line = zlib.compress(bytes(1000), 9)
    bomb = zlib.compress(bytes(60_000_000), 9)
    small = Image.fromarray(_noise(random_, 8, 8))
    bmp, gif, webp = (bytearray(_saved(small, kind)) for kind in ("BMP", "GIF", "WEBP"))
    bmp[18:26] = struct.pack("<ii", 50_000, 50_000)
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    jpeg = bytearray(_saved(small, "JPEG"))
    slow = _saved(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    scan = slow[slow.rindex(b"\xff\xda") : -2]
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", 65_000, 65_000)
    return {
        "png bomb": _png(100_000, 100_000, bomb),
        "png bomb in text": _png(50, 50, line, _chunk(b"zTXt", b"a\0\0" + bomb)),
        "png bomb in profile": _png(50, 50, line, _chunk(b"iCCP", b"a\0\0" + bomb)),
        "png no pixels": _png(0, 10, line),
        "png widest": _png(2**31 - 1, 1, line),
        "png square": _png(2**31 - 1, 2**31 - 1, line),
        "png too few lines": _png(900, 900, line),
        "png 1x60000": _saved(Image.new("L", (1, 60_000)), "PNG"),
        "png 60000x1": _saved(Image.new("L", (60_000, 1)), "PNG"),
        "jpeg 1x60000": _saved(Image.new("RGB", (1, 60_000)), "JPEG"),
        "bmp lies": bytes(bmp),
        "gif lies": bytes(gif),
        "webp cut": bytes(webp[:-20]),
        "jpeg of a thousand scans": slow[:-2] + scan * 1000 + slow[-2:],
        "tiff bomb": _saved(Image.new("1", (30_000, 30_000)), "TIFF", compression="group4"),
        "tiff of one huge tile": tiff(tile=(8000, 8000)),
        "tiff of very many strips": tiff(strips=110_000),
        "gif screen": _gif_screen(),
        "jpeg lies": bytes(jpeg),
        "jpeg of fill bytes": slow[:2] + b"\xff" * 200_000 + slow[2:],
        "png of 20 megapixels": _saved(Image.new("L", (5000, 4000)), "PNG"),
    }


def tiff(*, pages: int = 1, strips: int = 1, tile: Tuple[int, int] = (0, 0)) -> bytes:
    """A TIFF of pages of 4x2 grey pixels, each in so many strips that are all the same, or in one tile of zeros."""
    tags = {256: 4, 257: 2, 258: 8, 259: 1, 262: 1, 277: 1}
    if tile[0]:
        data = zlib.compress(bytes(tile[0] * tile[1]), 9)
        tags.update({259: 8, 322: tile[0], 323: tile[1], 324: 8, 325: len(data)})
        counts = {}
    else:
        data = struct.pack("<I", 8) * strips
        tags.update({273: 8, 278: 2 if strips == 1 else 1, 279: 8})
        counts = {273: strips, 279: strips}
    first, size = 8 + len(data), 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, counts.get(tag, 1), tags[tag]) for tag in sorted(tags))
    directories = [
        struct.pack("<H", len(tags)) + entries + struct.pack("<I", first + (page + 1) * size) for page in range(pages)
    ]
    return b"II*\0" + struct.pack("<I", first) + data + b"".join(directories)[:-4] + bytes(4)


def _gif_screen() -> bytes:
    """A frame of one pixel on a screen of four thousand million."""
    pixel = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00" + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\x00\x00" + bytes(6) + pixel + b"\x3b"


def _damages(random_: random.Random, data: bytes) -> Iterator[Tuple[str, bytes]]:
    """Some of what may befall a file."""
    changed = bytearray(data)
    for _ in range(random_.randint(1, 12)):
        changed[random_.randrange(len(changed))] = random_.randrange(256)
    yield "bytes changed", bytes(changed)
    header = bytearray(data)
    for _ in range(4):
        header[random_.randrange(4, min(len(header), 60))] = random_.choice((0, 1, 0x7F, 0x80, 0xFF))
    yield "header changed", bytes(header)
    yield "cut", data[: random_.randrange(1, len(data))]
    start = random_.randrange(len(data))
    yield "hole", data[:start] + data[start + random_.randint(1, 40) :]
    yield "repeated", data[:start] + data[start // 2 : start] * 3 + data[start:]
    yield "zeros", data[:start] + bytes(min(200, len(data) - start)) + data[start + 200 :]
    yield "two in one", data[:start] + data
    yield "noise behind", data + random_.randbytes(500)


def write_files(folder: Path, outside: Path, seed: int) -> Dict[str, List[str]]:
    """Fill `folder`; returns paths by what is to become of them: ``decoded``, ``refused`` or ``either``.

    Args:
        outside: an image in another folder, at which links out of `folder` point.
    """
    random_ = random.Random(seed)
    valid, refused = valid_images(random_), refused_images(random_)
    paths: Dict[str, List[str]] = {"decoded": [], "refused": [], "either": []}

    def add(kind: str, name: str, data: bytes) -> None:
        path = folder / name.replace(" ", "-")
        path.write_bytes(data)
        paths[kind].append(str(path))

    for name, data in valid.items():
        add("decoded", name, data)
        add("decoded", f"{name}.{random_.choice(('exe', 'svg', 'txt', 'png', 'jpg'))}", data)
        for damage, damaged in _damages(random_, data):
            add("either", f"{name} {damage}", damaged)
    tiff = bytearray(valid["tiff"])
    directory = struct.unpack("<I", tiff[4:8])[0]
    tiff[directory : directory + 2] = b"\xff\xff"
    add("either", "tiff of 65535 entries", bytes(tiff))
    for name, data in {**refused, **_NOT_IMAGES}.items():
        add("refused", name, data)
        add("refused", f"{name}.jpg", data)
    paths["refused"] += [str(path) for path in _places(folder, outside)]
    return paths


def _places(folder: Path, outside: Path) -> Iterator[Any]:
    """Paths that are not those of images in `folder`."""
    links: Dict[str, str] = {
        "link-out": str(outside),
        "link-up": f"../{outside.parent.name}/{outside.name}",
        "link-zero": "/dev/zero",
        "link-itself": "link-itself",
        "link-nowhere": "nowhere",
        "link-secret": "/etc/passwd",
        "link-memory": "/proc/self/mem",
        "link-folder": str(outside.parent),
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
        yield folder / name
    os.mkfifo(folder / "fifo.jpg")
    (folder / "folder.jpg").mkdir()
    hole = folder / "sparse.jpg"
    with hole.open("wb") as file:
        file.truncate(1 << 40)
    yield from (folder / "fifo.jpg", folder / "folder.jpg", hole, folder / "link-folder" / outside.name)
    yield from ("/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd", str(outside), "/", "~", "-", "|id")
    yield from (f"{folder}/../{outside.parent.name}/{outside.name}", f"{folder}/nowhere.jpg", f"{folder}/\0.jpg")
    yield from (f"{folder}/{'a' * 3000}", f"{folder}/\udcff.jpg", "http://127.0.0.1/a.jpg", "ftp://a/b", "file:///etc")
    for name in ("line\nbreak.png", "bell\a.png", "tab\t\x1b[31m.png", "\u202egnp.exe", "a" * 250 + ".png"):
        (folder / name).write_bytes(b"no image")
        yield folder / name
    bind = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # a socket's path must be short
    bind.bind("socket.jpg")
    os.chdir(here)
    bind.close()
    yield folder / "socket.jpg"
    yield from ("data:image/png;base64,AAAA", f"file://elsewhere{folder}/png", "s3://nobody/a.jpg", f"file://{outside}")
