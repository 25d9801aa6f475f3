"""Images and films that are sent with their jobs, to workers that share no disk with the sender."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from typing import Any, NamedTuple, Optional, Type

from worker.contract import DATA, UPLOAD, AnyJob, Job
from worker.errors import ImageNotFound, ImageTooLarge, InvalidRequest
from worker.files import printable

#: What a message has beside its image, in bytes, at the most; and how much longer base64 in base64 is.
_REST, _LONGER = 8192, 16 / 9


class Limits(NamedTuple):
    """The workers' POSE_MAX_BYTES, POSE_MAX_UPLOADS_BYTES and POSE_MAX_MESSAGE_BYTES."""

    image: int
    uploads: int
    message: int


class Sent(NamedTuple):
    """An image or film that is sent: how the message names it, and what is kept beside the job, if not all is in it."""

    place: str
    beside: Optional[bytes]


def sent(path: Any, data: Any, upload: bool, limits: Limits, kind: Type[AnyJob] = Job) -> Optional[Sent]:
    """What is to be sent of the arguments of :meth:`worker.client.sync.PoseClient.submit`; None: only a path.

    Args:
        kind: an image's job, or a film's, which is never sent in the message itself.

    Raises:
        InvalidRequest: it is no image, or both a path and an image.
        ImageNotFound: there is no such file.
        ImageTooLarge: it has more bytes than the workers take.
    """
    if (path is None) == (data is None):
        raise InvalidRequest("The job must have either a path or data, the image itself; give one of the two.")
    if data is None and not upload:
        return None
    found, title = (_file(path, limits.image), os.fsdecode(path)) if data is None else (_encoded(data), "data")
    title, what = printable(title), "image" if kind is Job else "film"
    if not found:
        raise InvalidRequest(f"The {what} {title} is empty; send a whole {what} file.")
    if len(found) > limits.image:
        instead = "a smaller image" if kind is Job else "a smaller film, or its path where the workers can read it"
        raise ImageTooLarge(f"{title} is too large: more than {limits.image} bytes; send {instead}.")
    if kind is Job and len(found) * _LONGER + _REST <= limits.message:
        return Sent(f"{DATA};base64,{base64.b64encode(found).decode()}", None)
    return Sent(UPLOAD + hashlib.sha256(found).hexdigest(), found)


def _file(path: Any, most: int) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - bytes are paths, too
            return file.read(most + 1)
    except (OSError, ValueError) as exc:
        shown = printable(os.fsdecode(path))
        raise ImageNotFound(f"{shown} cannot be read here ({getattr(exc, 'strerror', exc)}); check the path.") from exc


def _encoded(data: Any) -> bytes:
    """A file's bytes as they are; a NumPy or PIL image as PNG, which loses nothing."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    from PIL import Image

    if not isinstance(data, Image.Image):
        data = _picture(data)
    file = io.BytesIO()
    try:
        plain = data if data.mode in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA") else data.convert("RGB")
        plain.save(file, "PNG", compress_level=1, exif=data.getexif())  # which may say that it is to be turned
    except (OSError, ValueError) as exc:
        raise InvalidRequest(f"data: is an image that cannot be read ({exc}); send a whole one.") from exc
    return file.getvalue()


def _picture(data: Any) -> Any:
    """A picture of a NumPy image: uint8, grey (H, W) or, as OpenCV has it, BGR (H, W, 3)."""
    import numpy as np
    from PIL import Image

    wrong = f"{type(data).__name__}"
    if isinstance(data, np.ndarray):
        grey, coloured = data.ndim == 2, data.ndim == 3 and data.shape[2:] == (3,)
        if data.dtype == np.uint8 and data.size and (grey or coloured):
            return Image.fromarray(np.ascontiguousarray(data if grey else data[:, :, ::-1]))
        wrong = f"an array of {data.dtype} {data.shape}"
    raise InvalidRequest(
        f"data: must be a file's bytes, a PIL image, or a uint8 array (H, W, 3) in BGR or (H, W) (got {wrong})."
    )


__all__ = ["Limits", "Sent", "sent"]
