"""What a file may cost, however it is built: a process of its own tells how much time and memory decoding it took."""

from __future__ import annotations

import io
import multiprocessing
import resource
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.support.costly_files import COSTLY
from worker.errors import ImageError
from worker.images.local import load_image
from worker.images.policy import ImagePolicy

#: As docs/operations.md has it.
SECONDS, MEGABYTES = 10.0, 1024
#: The longest side, in pixels, of the largest image.
SIDE = 8000


class Cost(NamedTuple):
    """How decoding has ended, and what it took."""

    end: str
    seconds: float
    megabytes: float


def _decode(path: Path, answer: Any) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        load_image(str(path), ImagePolicy(roots=(str(path.parent),)))
        end = ""
    except ImageError as exc:  # any other kind fails the test
        end = str(exc)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.send(Cost(end, time.process_time() - began, (peak - before) / 1024))


def cost(path: Path) -> Cost:
    """What decoding `path` costs."""
    fork = multiprocessing.get_context("fork")
    answer, said = fork.Pipe(duplex=False)
    child = fork.Process(target=_decode, args=(path, said))
    child.start()
    said.close()
    try:
        return answer.recv()
    finally:
        child.join()


@pytest.mark.parametrize("name", COSTLY)
@pytest.mark.parametrize("size", [1_000_000, pytest.param(60_000_000, marks=pytest.mark.long)])
def test_a_file_costs_what_its_pixels_explain(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / "costly"
    path.write_bytes(COSTLY[name](size))
    took = cost(path)
    assert took.seconds < SECONDS, took
    assert took.megabytes < MEGABYTES, took
    assert "\n" not in took.end


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGBA", {"compress_level": 1}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", {"progressive": True, "subsampling": 0}),
        ("WEBP", "RGBA", {"lossless": True, "method": 0}),
        ("GIF", "P", {}),
        ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
        ("TIFF", "F", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
    ],
)
def test_the_largest_image_costs_no_more(tmp_path: Path, kind: str, mode: str, options: Any) -> None:
    path = tmp_path / "large"
    Image.new(mode, (SIDE, SIDE)).save(path, kind, **options)
    took = cost(path)
    assert took.end == ""
    assert took.seconds < SECONDS, took
    assert took.megabytes < MEGABYTES, took


def _photograph(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


def _with_segments(*segments: bytes) -> bytes:
    """A JPEG with application segments of these contents, each after the byte of its number."""
    data = _photograph("JPEG")
    parts = [struct.pack(">BBH", 0xFF, 0xE0 + one[0], len(one) + 1) + one[1:] for one in segments]
    return data[:2] + b"".join(parts) + data[2:]


def _many_frames(kind: str, count: int) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("L", (64, 48), number % 256) for number in range(count)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        # A telephone's depth map and second picture in 150 parts, a large profile, the maker's notes.
        _with_segments(*[b"\1http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)] * 150),
        _with_segments(*[b"\2ICC_PROFILE\0" + bytes((number, 255)) + bytes(60_000) for number in range(1, 256)][:100]),
        _with_segments(b"\1Exif\0\0II*\0\x08\0\0\0\0\0" + bytes(60_000)),
        _photograph("JPEG", progressive=True),
        _photograph("JPEG", restart_marker_blocks=1),
        _photograph("PNG"),
        _photograph("TIFF"),
        _many_frames("GIF", 500),
        _many_frames("WEBP", 100),
        _many_frames("TIFF", 300),
    ],
    ids=["xmp", "profile", "exif", "progressive", "restarts", "png", "tiff", "gif", "webp", "pages"],
)
def test_what_cameras_scanners_and_editors_write_is_decoded(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "honest"
    path.write_bytes(data)
    image = load_image(str(path), ImagePolicy(roots=(str(tmp_path),)))
    assert (image.width, image.height) in ((800, 600), (64, 48))


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_bitmaps_keep_their_colours(tmp_path: Path, bits: int) -> None:
    """Two lines, from the bottom: a run and three single pixels, and a run as wide as the image."""
    colours = [(number * 3 % 256, number * 5 % 256, number * 7 % 256) for number in range(1 << bits)]
    single = b"\x12\x30" if bits == 4 else b"\1\2\3\0"
    lines = b"\5" + (b"\x66" if bits == 4 else b"\6") + b"\0\3" + single + b"\0\0" + b"\x08\x77\0\1"
    palette = b"".join(bytes((*colour, 0)) for colour in colours)
    start = 54 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, 8, 2, 1, bits, 1 if bits == 8 else 2, len(lines), 0, 0, 1 << bits, 0)
    path = tmp_path / "packed.bmp"
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(lines), 0, 0, start) + head + palette + lines)
    pixels = load_image(str(path), ImagePolicy(roots=(str(tmp_path),))).pixels
    top = 7 if bits == 4 else 0x77
    assert pixels.tolist() == [[list(colours[i]) for i in row] for row in ([top] * 8, [6] * 5 + [1, 2, 3])]
