"""What phones and browsers make: AVIF, HEIC and JPEG XL, with the same bounds; JPEGs that have JPEGs behind them."""

from __future__ import annotations

import importlib.util
import io
import struct
from typing import Any, Callable, Dict

import cv2
import numpy as np
import pytest
from PIL import Image

from worker import errors
from worker.images import formats, jxl
from worker.images.local import LoadedImage, decode_image
from worker.images.policy import ImagePolicy

#: RGB of the quarters: top left, top right, bottom left, bottom right.
QUARTERS = ((220, 30, 20), (30, 200, 40), (20, 40, 230), (240, 240, 60))
WIDTH, HEIGHT = 96, 64


def _needs(kind: str, module: str) -> Any:
    missing = importlib.util.find_spec(module) is None
    return pytest.param(kind, marks=pytest.mark.skipif(missing, reason=f"{module} is not installed"))


KINDS = [_needs("AVIF", "PIL"), _needs("HEIF", "pillow_heif"), _needs("JXL", "pillow_jxl")]
PLUGINS = KINDS[1:]


def encoded(kind: str, pixels: np.ndarray, **options: Any) -> bytes:
    if kind == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    if kind == "JXL":
        import pillow_jxl  # noqa: F401 - registers itself
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=95, **options)
    return file.getvalue()


def quarters() -> np.ndarray:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    half = HEIGHT // 2, WIDTH // 2
    picture[: half[0], : half[1]], picture[: half[0], half[1] :] = QUARTERS[:2]
    picture[half[0] :, : half[1]], picture[half[0] :, half[1] :] = QUARTERS[2:]
    return picture


def colours(image: LoadedImage) -> np.ndarray:
    """Those in the middle of the quarters, as RGB."""
    points = [(y * image.height // 4, x * image.width // 4) for y in (1, 3) for x in (1, 3)]
    return np.array([image.pixels[point][::-1] for point in points], int)


def load(data: bytes, **limits: Any) -> LoadedImage:
    return decode_image(data, "photo.jpg", ImagePolicy(roots=(), **limits))  # what it is called does not matter


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_comes_out_as_it_is(kind: str) -> None:
    image = load(encoded(kind, quarters()))
    assert (image.format, image.width, image.height, image.frames) == (kind, WIDTH, HEIGHT, 1)
    assert image.warnings == ()
    assert np.abs(colours(image) - QUARTERS).max() <= 16


@pytest.mark.parametrize("kind", KINDS)
def test_transparency_is_laid_over_white(kind: str) -> None:
    image = load(encoded(kind, np.zeros((HEIGHT, WIDTH, 4), np.uint8)))
    assert image.pixels.min() >= 250


@pytest.mark.parametrize("kind", KINDS[:2])
def test_it_is_turned_as_its_container_says(kind: str) -> None:
    """AVIF and HEIF have the turn beside the pixels (irot, imir); the encoders make it from EXIF's orientation."""
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(kind, quarters(), exif=turned.tobytes())
    assert b"irot" in data
    image = load(data)
    assert (image.width, image.height) == (HEIGHT, WIDTH)
    assert np.abs(colours(image) - [QUARTERS[at] for at in (2, 0, 3, 1)]).max() <= 16


@pytest.mark.parametrize("kind", PLUGINS[1:])
def test_a_jpeg_xl_is_turned_as_its_codestream_says(kind: str) -> None:
    """A JPEG that is packed again has its turn in the codestream. This encoder halves such a JPEG: only its shape is
    compared."""
    turned, file = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    Image.fromarray(quarters()).save(file, "JPEG", exif=turned)
    import pillow_jxl

    data = pillow_jxl.Encoder(mode="RGB", num_threads=0)(file.getvalue(), WIDTH, HEIGHT, jpeg_encode=True)
    image = load(data)
    assert (image.width, image.height) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", PLUGINS[1:])
def test_a_jpeg_xl_is_not_turned_as_exif_says(kind: str) -> None:
    """ISO/IEC 18181-2: the codestream's own turn is the only one."""
    turned = Image.Exif()
    turned[0x0112] = 6
    image = load(encoded(kind, quarters(), exif=turned.tobytes()))
    assert np.abs(colours(image) - QUARTERS).max() <= 16


def _avif_of(data: bytes) -> bytes:
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :]


def _jxl_of(_: bytes) -> bytes:
    """A codestream's beginning: not small, sides of 30 bits, no ratio."""
    side = 60_000 - 1
    bits = (3 << 1) | (side << 3) | (0 << 33) | (3 << 36) | (side << 38)
    return jxl.STREAM + bits.to_bytes(12, "little") + bytes(100)


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_says_it_is_huge_is_refused_before_it_is_decoded(kind: str) -> None:
    large: Dict[str, Callable[[bytes], bytes]] = {"AVIF": _avif_of, "HEIF": _avif_of, "JXL": _jxl_of}
    with pytest.raises((errors.ImageTooLarge, errors.ImageUndecodable)):
        load(large[kind](encoded(kind, quarters())))


@pytest.mark.parametrize("kind", KINDS)
def test_more_pixels_than_the_limit_are_refused(kind: str) -> None:
    with pytest.raises(errors.ImageTooLarge, match=f"{WIDTH}x{HEIGHT} pixels, more than 6000"):
        load(encoded(kind, quarters()), max_pixels=6000)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_ends_in_one_sentence(kind: str, seed: int) -> None:
    random, whole, said = np.random.default_rng(seed), encoded(kind, quarters()), []
    for _ in range(60):
        data = bytearray(whole[: random.integers(8, len(whole) + 1)])
        for at in random.integers(0, len(data), 4):
            data[at] = random.integers(256)
        try:
            load(bytes(data))
        except (errors.ImageUndecodable, errors.ImageTooLarge) as exc:
            said.append(str(exc))
    assert said
    assert all(text.startswith("photo.jpg") and text.endswith(".") and "\n" not in text for text in said)


@pytest.mark.parametrize(
    ("start", "title"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC/HEIF"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "HEIC/HEIF"),
        (jxl.CONTAINER, "JPEG XL"),
        (jxl.STREAM, "JPEG XL"),
    ],
)
def test_without_its_plugin_the_error_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, start: bytes, title: str
) -> None:
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.ImageUndecodable) as caught:
        load(start + bytes(200))
    assert f"photo.jpg cannot be decoded: it is {title}, which" in str(caught.value)
    assert "pip install -r deploy/requirements-formats.txt" in str(caught.value)


def test_without_avif_in_pillow_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.features, "check", lambda name: False)
    with pytest.raises(errors.ImageUndecodable, match=r"it is AVIF.*install Pillow"):
        load(encoded("AVIF", quarters()))


def test_a_film_in_boxes_is_no_image() -> None:
    with pytest.raises(errors.ImageUndecodable, match="it is not an image in JPEG, "):
        load(b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42" + bytes(100))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (256, 256), (257, 40), (640, 480), (1920, 1080), (5000, 31)])
@pytest.mark.parametrize("kind", PLUGINS[1:])
def test_the_size_of_a_jpeg_xl_is_read_from_its_header(kind: str, size: Any) -> None:
    data = encoded(kind, np.zeros((size[1], size[0], 3), np.uint8))
    assert jxl.size_of(jxl.codestream(data)) == size


def test_a_jpeg_with_others_behind_it_is_a_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """As phones write it, with a gain map; it takes the fast way."""
    file = io.BytesIO()
    gain = Image.fromarray(np.full((HEIGHT // 4, WIDTH // 4), 90, np.uint8)).convert("RGB")
    Image.fromarray(quarters()).save(file, "MPO", save_all=True, append_images=[gain], quality=95)
    assert Image.open(io.BytesIO(file.getvalue())).format == "MPO"
    decoded, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *words: decoded.append(1) or decode(*words))
    image = load(file.getvalue())
    assert (image.format, image.frames, image.warnings, len(decoded)) == ("JPEG", 1, (), 1)
    assert np.abs(colours(image) - QUARTERS).max() <= 16
