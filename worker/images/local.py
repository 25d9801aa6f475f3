"""A path → pixels. Files come from strangers: what a file is, and how large, is checked before it is decoded."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, Callable, Dict, Iterator, Optional, Tuple, Type

import cv2
import numpy as np
from PIL import AvifImagePlugin, Image

from worker.contract import DATA, without_query
from worker.errors import (
    ImageNotAllowed,
    ImageNotFound,
    ImageNotReady,
    ImageTooLarge,
    ImageUndecodable,
    ImageUnreadable,
    PoseError,
)
from worker.files import printable
from worker.images import jxl
from worker.images.bombs import Costly, Reader, check, count_frames, tile_size
from worker.images.formats import Unknown, kind_of, need, open_picture
from worker.images.policy import ImagePolicy, is_remote, local_path
from worker.images.remote import read_remote
from worker.images.uploads import data_of

#: Most strips or tiles of an image, each of which is read by itself: a scanner's have one for each of its lines.
_MOST_PIECES = 100_000
#: Pixels that are converted at a time, at eight bytes each and more.
_BAND = 1 << 20
#: What transparency is laid over.
_BACKGROUND = (255, 255, 255)
#: BMP compressions that Pillow unpacks byte by byte in Python: RLE8 and RLE4.
_PACKED = (1, 2)
#: What EXIF's orientations do to pixels that are stored so (TIFF 6.0, "Orientation").
_TURNS: Dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90,
}
#: How a JPEG is decoded at a fraction of its size, which takes a fraction of the time.
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
#: Pillow's own limit, for the whole process; ours is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
#: The other slots fill the cores.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
#: What opening a file fails with where it must not be opened.
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.ENODEV)


@dataclass(frozen=True)
class LoadedImage:
    """Pixels uint8 (H, W, 3), BGR, upright as EXIF has it, and where they come from.

    Of a `reduced` image there is one pixel for so many in either direction; width and height are still the source's.
    """

    pixels: np.ndarray
    path: str
    format: str
    frames: int
    warnings: Tuple[str, ...]
    reduced: int = 1

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1]) * self.reduced

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0]) * self.reduced

    def rotated(self, degrees: int) -> LoadedImage:
        """This image, turned clockwise by 0, 90, 180 or 270 `degrees`."""
        return replace(self, pixels=np.ascontiguousarray(np.rot90(self.pixels, -degrees // 90)))


def load_image(path: str, policy: ImagePolicy) -> LoadedImage:
    """Read and decode the image at `path`; raises what :func:`read_image` and :func:`decode_image` raise."""
    return decode_image(read_image(path, policy), path, policy)


def read_image(path: str, policy: ImagePolicy) -> bytes:
    """The bytes of the image at `path`, a path or a file://, s3://, https:// or data: URL.

    Raises:
        ImageNotFound, ImageNotAllowed, ImageTooLarge, ImageUndecodable: what is wrong with it.
        ImageNotReady, ImageUnreadable: it is not there yet, or reading it failed; worth another try.
    """
    if path.startswith(DATA):
        data = data_of(path, policy)
    else:
        data = read_remote(path, policy) if is_remote(path) else _read(local_path(path), printable(path), policy)
    if not data:
        raise _undecodable(printable(without_query(path)), "it is empty")
    return data


def decode_image(data: bytes, path: str, policy: ImagePolicy, enough: Optional[int] = None) -> LoadedImage:
    """Decode the image that was read from `path`.

    Args:
        enough: the image may be reduced, as long as its shorter side keeps so many pixels; None: it may not.

    Raises:
        ImageTooLarge, ImageUndecodable: what is wrong with it.
    """
    path = without_query(path)
    shown = printable(path)
    try:
        return replace(_decode(data, shown, policy, enough), path=path)
    except PoseError:
        raise
    except (Costly, Unknown) as exc:
        raise _undecodable(shown, str(exc)) from exc
    except MemoryError as exc:
        raise ImageTooLarge(f"{shown} did not fit into memory; send a smaller image.") from exc
    except Exception as exc:  # decoders raise errors of every kind on hostile files
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise _undecodable(shown, f"it is truncated or corrupt ({reason})") from exc


@contextmanager
def opened(local: str, shown: str, policy: ImagePolicy) -> Iterator[BinaryIO]:
    """The file at `local`, to be read. What is checked is what is read.

    The path is resolved once, without opening what it names.

    Args:
        shown: its name in sentences.

    Raises:
        ImageNotFound, ImageNotAllowed, ImageTooLarge, ImageNotReady, ImageUnreadable: why it cannot be read.
    """
    try:
        handle = os.open(local, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        raise _unopened(exc, local, shown, policy) from exc
    try:
        if not policy.allows_file(os.readlink(f"/proc/self/fd/{handle}")):  # noqa: PTH115 - as the kernel has resolved it
            raise _outside(shown)
        _check_kind(os.fstat(handle), shown, policy)
        with open(f"/proc/self/fd/{handle}", "rb") as file:  # noqa: PTH123 - the very file that was checked
            yield file
    except OSError as exc:
        if exc.errno in _FORBIDDEN:
            raise _forbidden(exc, shown) from exc
        raise ImageUnreadable(f"{shown} could not be read ({exc.strerror}); it is tried again.") from exc
    finally:
        os.close(handle)


def _read(local: str, shown: str, policy: ImagePolicy) -> bytes:
    with opened(local, shown, policy) as file:
        data = file.read(policy.max_bytes + 1)  # it may have grown since
    if len(data) > policy.max_bytes:
        raise _too_large(shown, f"more than {policy.max_bytes} bytes")
    return data


def _unopened(exc: Exception, local: str, shown: str, policy: ImagePolicy) -> PoseError:
    number = getattr(exc, "errno", None)
    if number in (errno.ENAMETOOLONG, None):
        return ImageNotFound(f"{shown[:200]!r} is not a possible path ({exc}); check it.")
    if not policy.allows_file(os.path.realpath(local)):  # of what lies outside, nothing is said
        return _outside(shown)
    if number in (errno.ENOENT, errno.ENOTDIR):
        kind: Type[PoseError] = ImageNotReady if policy.wait_for_missing else ImageNotFound
        return kind(f"{shown} does not exist on the worker's host; check the path and the mounts.")
    if number in _FORBIDDEN:
        return _forbidden(exc, shown)
    return ImageUnreadable(f"{shown} could not be opened ({exc}); it is tried again.")


def _outside(shown: str) -> ImageNotAllowed:
    return ImageNotAllowed(
        f"{shown} is outside the folders that this worker may read; set POSE_IMAGE_ROOTS to allow it."
    )


def _forbidden(exc: Exception, shown: str) -> ImageNotAllowed:
    return ImageNotAllowed(f"{shown} may not be opened ({getattr(exc, 'strerror', exc)}); check its permissions.")


def _check_kind(status: os.stat_result, shown: str, policy: ImagePolicy) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ImageNotAllowed(f"{shown} is {kind}; send the path of one file.")
    if status.st_size > policy.max_bytes:
        raise _too_large(shown, f"{status.st_size} bytes, more than {policy.max_bytes}")


def _decode(data: bytes, shown: str, policy: ImagePolicy, enough: Optional[int]) -> LoadedImage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is checked here
        check(data)
        kind = kind_of(data)
        need(kind)
        if kind == "JXL":
            stream = jxl.codestream(data)
            _check_size(jxl.size_of(stream), shown, policy)
            return LoadedImage(_through_pillow(jxl.decode(stream)), shown, kind, 1, ())
        reader = Reader(data)
        reader.allow_header()
        with open_picture(data, kind, reader) as picture:
            _check_size(picture.size, shown, policy)
            _check_pieces(picture, shown, policy)
            frames, more = count_frames(picture, reader)
            of = f"more than {frames}" if more else str(frames)
            notes = [f"only the first of {of} frames was looked at"] if frames > 1 else []
            reader.allow_rest()
            reduced = _reduction(picture, enough)
            pixels = _through_opencv(data, picture, reduced)
            if pixels is None:
                pixels, reduced = _through_pillow(picture), 1
            orientation = _orientation(picture)
            if orientation is None:
                notes.append("its EXIF data cannot be read, so it was not turned")
            turn = _TURNS.get(orientation or 1)
            pixels = pixels if turn is None else np.ascontiguousarray(turn(pixels))
            return LoadedImage(pixels, shown, _format(picture), frames, tuple(notes), reduced)


def _format(picture: Image.Image) -> str:
    """A JPEG that has more JPEGs behind it (CIPA DC-007), such as a phone's gain map for bright screens, is a JPEG."""
    return "JPEG" if picture.format == "MPO" else str(picture.format)


def _check_size(size: Tuple[int, int], shown: str, policy: ImagePolicy) -> None:
    width, height = size
    if min(size) < 1:
        raise _undecodable(shown, "it has no pixels")
    if width * height > policy.max_pixels:
        raise _too_large(shown, f"{width}x{height} pixels, more than {policy.max_pixels}")
    if max(size) > policy.max_aspect * min(size):
        raise _too_large(shown, f"{width}x{height} pixels, a shape more extreme than {policy.max_aspect:g} to 1")


def _check_pieces(picture: Image.Image, shown: str, policy: ImagePolicy) -> None:
    """How an image is cut: a TIFF's tile is unpacked as a whole, however little of it belongs to the image."""
    width, height = tile_size(picture)
    if width * height > policy.max_pixels:
        raise _too_large(shown, f"tiles of {width}x{height} pixels, more than {policy.max_pixels}")
    if len(getattr(picture, "tile", ())) > _MOST_PIECES:
        raise _undecodable(shown, f"it is cut into more than {_MOST_PIECES} pieces")


def _orientation(picture: Image.Image) -> Optional[int]:
    """As EXIF has it, 1 being upright; None if that cannot be read."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # the EXIF data may be broken, and the image whole
        return None


def _reduction(picture: Image.Image, enough: Optional[int]) -> int:
    """By how much a JPEG may be reduced; it divides both sides, for the last pixels would be of other sizes."""
    if enough is None or _format(picture) != "JPEG":
        return 1
    width, height = picture.size
    return max(
        by for by in _REDUCED if by == 1 or (width % by == height % by == 0 and min(width, height) >= by * enough)
    )


def _through_opencv(data: bytes, picture: Image.Image, reduced: int) -> Optional[np.ndarray]:
    """What OpenCV decodes in less time or memory than Pillow: plain JPEGs, WebPs, packed BMPs; else None."""
    kind = _format(picture)
    plain = kind == "JPEG" and picture.mode in ("RGB", "L") and data.rstrip(b"\0").endswith(b"\xff\xd9")
    packed = kind == "BMP" and picture.info.get("compression") in _PACKED
    if not plain and not packed and kind != "WEBP":
        return None
    flags = cv2.IMREAD_UNCHANGED if kind == "WEBP" else _REDUCED[reduced] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if packed and pixels is None:  # Pillow takes half a minute for it
        raise ValueError("it cannot be unpacked")
    size = picture.size[0] // reduced, picture.size[1] // reduced
    if pixels is not None and pixels.shape[1::-1] != size:  # which is what was checked
        raise ValueError("its parts disagree on its size")
    if pixels is None or pixels.shape[2] == 3:
        return pixels
    return _by_bands(picture.size, lambda top, end: _opaque(Image.fromarray(pixels[top:end])))


def _through_pillow(picture: Image.Image) -> np.ndarray:
    """The first frame as uint8 (H, W, 3), BGR. A TIFF is turned, too."""
    size = picture.size
    if picture.format != "HEIF":  # which has its first image wherever it says
        picture.seek(0)
    picture.load()
    if picture.format == "HEIF" and picture.size != size:  # which is what was checked
        raise ValueError("its parts disagree on its size")
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        least, scale = _range(picture)
        return _by_bands(
            picture.size,
            lambda *rows: np.clip(np.round((_finite(_band(picture, *rows)) - least) * scale), 0, 255)[..., None],
        )
    return _by_bands(picture.size, lambda *rows: _opaque(_band(picture, *rows))[:, :, ::-1])


def _by_bands(size: Tuple[int, int], read: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """An image of `size` (width, height) as uint8 (H, W, 3), a band of rows at a time, to hold it but twice."""
    width, height = size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        pixels[top : top + rows] = read(top, min(top + rows, height))
    return pixels


def _band(picture: Image.Image, top: int, end: int) -> Image.Image:
    return picture.crop((0, top, picture.width, end))


def _opaque(picture: Image.Image) -> np.ndarray:
    """As uint8 (H, W, 3), its transparency laid over white."""
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.new("RGB", layer.size, _BACKGROUND)
        picture.paste(layer, mask=layer.getchannel("A"))
    return np.asarray(picture.convert("RGB"))


def _range(picture: Image.Image) -> Tuple[float, float]:
    """How 16-bit and wider grey values are made 8-bit ones: the value of black, and the factor.

    By their high byte where they use 16 bits, else by their range.
    """
    low, high = np.inf, -np.inf
    rows = max(1, _BAND // picture.width)
    for top in range(0, picture.height, rows):
        values = _finite(_band(picture, top, min(top + rows, picture.height)))
        low, high = min(low, values.min()), max(high, values.max())
    least, most = (0.0, 65535.0) if low >= 0 and high <= 65535 else (low, high)
    if picture.mode == "F" and high <= 1:
        least, most = 0.0, 1.0
    return least, 255.0 / max(most - least, 1e-12)


def _finite(picture: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(picture).astype(np.float64))


def _undecodable(shown: str, reason: str) -> ImageUndecodable:
    return ImageUndecodable(f"{shown} cannot be decoded: {reason}; send a whole image file.")


def _too_large(shown: str, reason: str) -> ImageTooLarge:
    return ImageTooLarge(f"{shown} is too large: {reason}; send a smaller image or raise the worker's limit.")
