"""Every kind of picture comes out as upright BGR; every kind of bad one is refused by name."""

from __future__ import annotations

import io
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any, Callable, Dict

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.support.hostile_files import tiff
from worker import errors
from worker.images.local import load_image
from worker.images.policy import ImagePolicy
from worker.process.life import TimeUp

WIDTH, HEIGHT = 60, 40
#: RGB of the quarters: top left, top right, bottom left, bottom right.
QUARTERS = ((220, 30, 20), (30, 200, 40), (20, 40, 230), (240, 240, 60))


@pytest.fixture
def policy(tmp_path: Path) -> ImagePolicy:
    return ImagePolicy(roots=(str(tmp_path),))


def quarters() -> np.ndarray:
    """An RGB picture with a different colour in each quarter."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:20, :30], picture[:20, 30:], picture[20:, :30], picture[20:, 30:] = QUARTERS
    return picture


def centres(pixels: np.ndarray) -> np.ndarray:
    """The colours in the middle of the four quarters, as RGB."""
    height, width = pixels.shape[:2]
    points = [(height // 4, width // 4), (height // 4, 3 * width // 4)]
    points += [(3 * height // 4, width // 4), (3 * height // 4, 3 * width // 4)]
    return np.array([pixels[point][::-1] for point in points], int)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_formats(tmp_path: Path, policy: ImagePolicy, kind: str) -> None:
    path = tmp_path / "picture"  # what a file is called does not matter
    Image.fromarray(quarters()).save(path, kind, quality=95)
    image = load_image(str(path), policy)
    assert image.format == kind
    assert (image.width, image.height, image.pixels.dtype) == (WIDTH, HEIGHT, np.uint8)
    assert np.abs(centres(image.pixels) - QUARTERS).max() <= 8
    assert image.warnings == ()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA", "YCbCr", "I", "F", "I;16"])
def test_modes(tmp_path: Path, policy: ImagePolicy, mode: str) -> None:
    path = tmp_path / "picture"
    grey = np.repeat(np.linspace(0, 255, WIDTH)[None], HEIGHT, 0).round()
    if mode in ("I", "I;16"):
        Image.fromarray((grey * 257).astype(np.int32 if mode == "I" else np.uint16)).save(path, "TIFF")
    elif mode == "F":
        Image.fromarray((grey / 255).astype(np.float32)).save(path, "TIFF")
    else:
        picture = Image.fromarray(np.repeat(grey.astype(np.uint8)[..., None], 3, 2)).convert(
            mode, palette=Image.Palette.ADAPTIVE
        )
        kind: Dict[str, Any] = {"format": "JPEG", "quality": 98} if mode in ("CMYK", "YCbCr") else {"format": "PNG"}
        picture.save(path, **kind)
    pixels = load_image(str(path), policy).pixels
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    if mode == "1":
        assert pixels[:, :5].mean() < 60
        assert pixels[:, -5:].mean() > 190
    else:
        assert np.abs(pixels.astype(float) - grey[..., None]).max() <= 8


def test_a_16_bit_colour_png_keeps_its_colours(tmp_path: Path, policy: ImagePolicy) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), quarters()[..., ::-1].astype(np.uint16) * 257)
    assert np.abs(centres(load_image(str(path), policy).pixels) - QUARTERS).max() <= 1


def test_transparency_is_laid_over_white(tmp_path: Path, policy: ImagePolicy) -> None:
    path = tmp_path / "glass.png"
    picture = np.dstack([quarters(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    picture[:20, :30, 3] = 0
    Image.fromarray(picture).save(path)
    assert (centres(load_image(str(path), policy).pixels) == [(255, 255, 255), *QUARTERS[1:]]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_comes_out_upright(
    tmp_path: Path, policy: ImagePolicy, orientation: int, kind: str
) -> None:
    # How the camera has stored the upright picture, by the definition of the tag (TIFF 6.0, "Orientation").
    stored = {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](quarters())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "picture"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, kind, exif=exif, quality=95)
    image = load_image(str(path), policy)
    assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert np.abs(centres(image.pixels) - QUARTERS).max() <= 8


@pytest.mark.parametrize(
    ("degrees", "order"), [(0, (0, 1, 2, 3)), (90, (2, 0, 3, 1)), (180, (3, 2, 1, 0)), (270, (1, 3, 0, 2))]
)
def test_rotated_clockwise_after_exif(tmp_path: Path, policy: ImagePolicy, degrees: int, order: Any) -> None:
    exif, path = Image.Exif(), tmp_path / "picture"
    exif[0x0112] = 3
    Image.fromarray(np.ascontiguousarray(np.rot90(quarters(), 2))).save(path, "PNG", exif=exif)
    image = load_image(str(path), policy).rotated(degrees)
    assert (image.width, image.height) == ((WIDTH, HEIGHT) if degrees % 180 == 0 else (HEIGHT, WIDTH))
    assert (centres(image.pixels) == [QUARTERS[number] for number in order]).all()
    assert image.pixels.flags.c_contiguous


def test_only_the_first_frame_is_looked_at_and_the_result_says_so(tmp_path: Path, policy: ImagePolicy) -> None:
    path = tmp_path / "moving.gif"
    first = Image.fromarray(quarters())
    first.save(path, save_all=True, append_images=[Image.new("RGB", first.size, c) for c in ("red", "blue")])
    image = load_image(str(path), policy)
    assert image.frames == 3
    assert image.warnings == ("only the first of 3 frames was looked at",)
    assert np.abs(centres(image.pixels) - QUARTERS).max() <= 8


def test_pages_are_counted_only_so_far(tmp_path: Path, policy: ImagePolicy) -> None:
    """To count them all takes the square of their number: ten seconds for these, and hours for those of 64 MB."""
    (tmp_path / "book.tiff").write_bytes(tiff(pages=20_000))
    (tmp_path / "leaf.tiff").write_bytes(tiff(pages=1000))
    began = time.process_time()  # of this process, whatever else the machine does
    book, leaf = (load_image(str(tmp_path / name), policy) for name in ("book.tiff", "leaf.tiff"))
    assert time.process_time() - began < 5
    assert (book.frames, book.warnings) == (1000, ("only the first of more than 1000 frames was looked at",))
    assert (leaf.frames, leaf.warnings) == (1000, ("only the first of 1000 frames was looked at",))


def test_deep_grey_takes_little_more_memory_than_its_pixels(tmp_path: Path, policy: ImagePolicy) -> None:
    deep = np.arange(4_000_000, dtype=np.uint32).reshape(2000, 2000).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    tracemalloc.start()
    try:
        pixels = load_image(str(tmp_path / "deep.png"), policy).pixels
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (pixels == np.round(deep / 257).astype(np.uint8)[..., None]).all()
    assert most < 20 * deep.size  # eight bytes a pixel, several times over, would be more than twice as much


def test_odd_names(tmp_path: Path, policy: ImagePolicy) -> None:
    path = tmp_path / "ünter a%20b\nc.png"
    Image.fromarray(quarters()).save(path)
    assert load_image(str(path), policy).width == WIDTH
    assert load_image(path.as_uri(), policy).width == WIDTH
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    Path(os.fsdecode(raw)).write_bytes(path.read_bytes())
    assert load_image(os.fsdecode(raw), policy).width == WIDTH


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises `width` x `height` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "expected", "told"),
    [
        (b"", errors.ImageUndecodable, "it is empty"),
        (b"just a text", errors.ImageUndecodable, "it is not an image in JPEG"),
        (b"\xff\xd8\xff", errors.ImageUndecodable, "not an image|truncated or corrupt"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", errors.ImageUndecodable, "it is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", errors.ImageUndecodable, "it is not an image"),
        (encoded("JPEG")[:9000], errors.ImageUndecodable, "truncated or corrupt"),
        (encoded("PNG")[:9000], errors.ImageUndecodable, "truncated or corrupt"),
        (encoded("WEBP")[:9000], errors.ImageUndecodable, "truncated or corrupt"),
        (encoded("TIFF")[:9000], errors.ImageUndecodable, "not an image|truncated or corrupt"),
        (encoded("BMP")[:9000], errors.ImageUndecodable, "truncated or corrupt"),
        (png_claiming(60_000, 60_000), errors.ImageTooLarge, "60000x60000 pixels, more than 64000000"),
        (png_claiming(300_000, 300_000), errors.ImageTooLarge, "300000x300000 pixels, more than"),
        (png_claiming(50_000, 20), errors.ImageTooLarge, "more extreme than 100 to 1"),
        (png_claiming(500, 500), errors.ImageUndecodable, "truncated or corrupt"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(
    tmp_path: Path, policy: ImagePolicy, data: bytes, expected: type, told: str
) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    with pytest.raises(expected, match=told) as caught:
        load_image(str(path), policy)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_file_of_more_bytes_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded("PNG"))
    with pytest.raises(errors.ImageTooLarge, match="bytes, more than 1000"):
        load_image(str(path), ImagePolicy(roots=(str(tmp_path),), max_bytes=1000))


def test_a_file_of_more_bytes_than_it_says() -> None:
    """As one that grows while it is read; the kernel says of its own files that they have no bytes."""
    with pytest.raises(errors.ImageTooLarge, match="more than 100 bytes"):
        load_image("/proc/self/maps", ImagePolicy(roots=("/proc",), max_bytes=100))


@pytest.mark.parametrize(
    ("make", "expected", "told"),
    [
        (lambda root: root / "nowhere.jpg", errors.ImageNotFound, "does not exist"),
        (lambda root: root / "file" / "below.jpg", errors.ImageNotFound, "does not exist"),
        (lambda root: root, errors.ImageNotAllowed, "is a directory"),
        (lambda root: "/etc/hostname", errors.ImageNotAllowed, "outside the folders"),
        (lambda root: f"{root}/../../../../../../etc/hostname", errors.ImageNotAllowed, "outside the folders"),
        (lambda root: f"{root}-sibling/a.jpg", errors.ImageNotAllowed, "outside the folders"),
        (lambda root: root / "loop", errors.ImageNotAllowed, "may not be opened"),
        (lambda root: "/dev/zero", errors.ImageNotAllowed, "outside the folders"),
        (lambda root: "\0", errors.ImageNotFound, "not a possible path"),
        (lambda root: root / ("a" * 300), errors.ImageNotFound, "not a possible path"),
        (lambda root: "https://example.org/a.jpg", errors.ImageNotAllowed, "POSE_IMAGE_ROOTS"),
        (lambda root: "ftp://example.org/a.jpg", errors.ImageNotAllowed, "not a path or a file://"),
        (lambda root: "file://elsewhere/a.jpg", errors.ImageNotAllowed, "not a path or a file://"),
    ],
)
def test_places_that_are_refused(tmp_path: Path, make: Callable[[Path], Any], expected: type, told: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"")
    (root / "loop").symlink_to(root / "loop")
    (tmp_path / "root-sibling").mkdir()
    (tmp_path / "root-sibling" / "a.jpg").write_bytes(b"x")
    with pytest.raises(expected, match=told):
        load_image(str(make(root)), ImagePolicy(roots=(str(root),)))


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    inside, outside, linked = tmp_path / "root", tmp_path / "elsewhere", tmp_path / "linked"
    inside.mkdir()
    outside.mkdir()
    Image.fromarray(quarters()).save(outside / "a.png")
    Image.fromarray(quarters()).save(inside / "b.png")
    (inside / "out.png").symlink_to(outside / "a.png")
    (inside / "in.png").symlink_to(inside / "b.png")
    linked.symlink_to(inside)
    with pytest.raises(errors.ImageNotAllowed, match="outside the folders"):
        load_image(str(inside / "out.png"), ImagePolicy(roots=(str(inside),)))
    assert load_image(str(inside / "in.png"), ImagePolicy(roots=(str(inside),))).width == WIDTH
    assert load_image(str(linked / "b.png"), ImagePolicy(roots=(str(linked),))).width == WIDTH


def test_a_missing_file_may_be_waited_for(tmp_path: Path) -> None:
    with pytest.raises(errors.ImageNotReady, match="does not exist"):
        load_image(str(tmp_path / "a.jpg"), ImagePolicy(roots=(str(tmp_path),), wait_for_missing=True))


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_gives_pixels_or_a_typed_error(tmp_path: Path, policy: ImagePolicy, seed: int) -> None:
    dice = np.random.default_rng(seed)
    kind = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")[seed % 6]
    data = bytearray(encoded(kind))
    for position in dice.integers(0, len(data), 30):
        data[position] = dice.integers(0, 256)
    path = tmp_path / "damaged"
    path.write_bytes(data)
    try:
        shape = load_image(str(path), policy).pixels.shape
    except errors.ImageError:  # any other error fails the test
        shape = (1, 1, 3)
    assert shape[2:] == (3,)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])  # of a JPEG Pillow does not even say so
def test_what_is_said_of_a_picture_may_be_broken(tmp_path: Path, policy: ImagePolicy, kind: str) -> None:
    path = tmp_path / "image"
    Image.new("RGB", (40, 30), (9, 99, 200)).save(path, kind, exif=b"Exif\0\0no TIFF at all")
    loaded = load_image(str(path), policy)
    assert loaded.pixels.shape == (30, 40, 3)
    assert loaded.warnings == ("its EXIF data cannot be read, so it was not turned",)


def test_a_film_behind_a_jpeg_is_not_looked_at(tmp_path: Path, policy: ImagePolicy) -> None:
    """As telephones write them; the film holds the bytes of a scan's marker hundreds of times, by chance."""
    path, whole = tmp_path / "motion.jpg", encoded("JPEG")
    within = b"\xff\xeb\xff\xfe" + b"\xff\xda" * 32_766  # and so does a block of data in front
    path.write_bytes(whole[:2] + within + whole[2:] + b"\xff\xda" * 500)
    assert load_image(str(path), policy).format == "JPEG"


def test_a_time_limit_is_not_taken_for_a_corrupt_file(
    tmp_path: Path, policy: ImagePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))

    def slow(*_: Any, **__: Any) -> None:
        raise TimeUp

    monkeypatch.setattr(Image, "open", slow)
    with pytest.raises(TimeUp):
        load_image(str(tmp_path / "a.png"), policy)
