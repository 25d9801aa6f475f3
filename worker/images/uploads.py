"""Images that came with their jobs: within the message (``data:``), or beside the job (``upload:`` and its SHA-256)."""

from __future__ import annotations

import base64
import hashlib
import re

from worker.contract import DATA, UPLOAD, without_query
from worker.errors import ImageNotFound, ImageTooLarge, ImageUndecodable
from worker.files import printable
from worker.images.policy import ImagePolicy

_SHA256 = re.compile("[0-9a-f]{64}")


def is_upload(path: str) -> bool:
    """Whether the image lies beside the job."""
    return path.startswith(UPLOAD)


def checked_upload(data: bytes, path: str, policy: ImagePolicy) -> bytes:
    """What lies beside the job, if it is what the message names.

    Args:
        data: what was found there, of more than the limit one byte more.
        path: ``upload:`` and the SHA-256 of the image, in hexadecimal digits.

    Raises:
        ImageNotFound, ImageTooLarge, ImageUndecodable: what is wrong with it.
    """
    shown = f"{printable(path):.100}"
    if not _SHA256.fullmatch(path[len(UPLOAD) :]):
        raise ImageNotFound(f"{shown} names no upload; send {UPLOAD} and the image's SHA-256, see docs/message.md.")
    if not data:
        raise ImageNotFound(f"{shown} is not there: it was not sent with this job, or has expired; submit it again.")
    _check_bytes(len(data), shown, policy)
    if hashlib.sha256(data).hexdigest() != path[len(UPLOAD) :]:
        raise ImageUndecodable(f"{shown} is not what was sent with this job, by its SHA-256; submit it again.")
    return data


def data_of(url: str, policy: ImagePolicy) -> bytes:
    """The bytes in a ``data:`` URL (RFC 2397).

    Raises:
        ImageTooLarge, ImageUndecodable: what is wrong with it.
    """
    head, comma, text = url[len(DATA) :].partition(",")
    shown = printable(without_query(url))
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("it has no ;base64, before its data")
        data = base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise ImageUndecodable(
            f"{shown} cannot be decoded: {exc}; send data:image/jpeg;base64, and the file in base64."
        ) from exc
    _check_bytes(len(data), shown, policy)
    return data


def _check_bytes(count: int, shown: str, policy: ImagePolicy) -> None:
    if count > policy.max_bytes:
        raise ImageTooLarge(f"{shown} is too large: more than {policy.max_bytes} bytes; send a smaller image.")
