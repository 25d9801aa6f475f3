"""Images by URL: ``s3://bucket/key`` and ``https://host/path``, read only, below an allowed root, so many bytes.

Redirects are followed a few times, each only to a URL that the policy allows, too. Which addresses a host may have is
checked in :mod:`worker.public_http`.
"""

from __future__ import annotations

from typing import BinaryIO, Optional
from urllib.parse import urljoin

from worker.contract import without_query
from worker.errors import (
    ImageNotAllowed,
    ImageNotFound,
    ImageNotReady,
    ImageTooLarge,
    ImageUnreadable,
    PoseError,
)
from worker.images.policy import ImagePolicy
from worker.public_http import Oversized, exchange
from worker.storage import s3

_REDIRECTS = 3
#: Bytes of a bucket's object that are read at a time, where they are not kept in memory.
_PIECE = 16 << 20
#: Statuses that may be others a little later.
_TRANSIENT = (408, 425, 429, *range(500, 600))


def read_remote(url: str, policy: ImagePolicy, sink: Optional[BinaryIO] = None) -> bytes:
    """The bytes at `url`.

    Args:
        sink: a file that they are written to; nothing is kept in memory, or returned, then.

    Raises:
        ImageNotAllowed: no root allows it, or its server does not.
        ImageNotFound, ImageTooLarge: see there.
        ImageNotReady, ImageUnreadable: worth another try.
    """
    if not policy.allows_url(url):
        raise ImageNotAllowed(
            f"{without_query(url)} is below no URL of this worker's POSE_IMAGE_ROOTS; add one to allow it."
        )
    return _from_s3(url, policy, sink) if url.startswith("s3://") else _from_web(url, policy, sink)


def _from_s3(url: str, policy: ImagePolicy, sink: Optional[BinaryIO]) -> bytes:
    path, files = "/".join(s3.split(url)), s3.filesystem()
    try:
        found = files.info(path)
        if found["type"] != "file":  # what lies below it is not it
            raise FileNotFoundError(path)
        size = int(found["size"] or 0)
        if size > policy.max_bytes:
            raise _too_large(url, policy)
        data: bytes = b""
        if sink is not None:
            for start in range(0, size, _PIECE):
                sink.write(files.cat_file(path, start=start, end=min(start + _PIECE, size)))
        elif size:
            data = files.cat_file(path, start=0, end=policy.max_bytes + 1)
    except FileNotFoundError as exc:
        raise _missing(url, policy) from exc
    except PermissionError as exc:
        raise ImageNotAllowed(f"{url} may not be read ({exc}); check the worker's rights in its bucket.") from exc
    except s3.errors() as exc:
        raise _unreadable(url, exc) from exc
    if len(data) > policy.max_bytes:  # it has grown since
        raise _too_large(url, policy)
    return data


def _from_web(url: str, policy: ImagePolicy, sink: Optional[BinaryIO]) -> bytes:
    for _ in range(_REDIRECTS + 1):
        if sink is not None:
            sink.seek(0)
            sink.truncate()
        try:
            answer = exchange(
                "GET",
                url,
                timeout_s=policy.url_timeout_s,
                max_bytes=policy.max_bytes,
                private_hosts=policy.private_hosts,
                sink=sink,
            )
        except Oversized as exc:
            raise _too_large(url, policy) from exc
        except (PermissionError, ValueError) as exc:
            raise ImageNotAllowed(f"{without_query(url)} is not fetched: {exc}.") from exc
        except OSError as exc:
            raise _unreadable(url, exc) from exc
        if answer.status not in (301, 302, 303, 307, 308):
            return _body(url, answer.status, answer.body, policy)
        target = urljoin(url, answer.headers.get("location", ""))
        if not policy.allows_url(target):
            raise ImageNotAllowed(
                f"{without_query(url)} leads to {without_query(target)}, which is below none of POSE_IMAGE_ROOTS."
            )
        url = target
    raise ImageNotAllowed(
        f"{without_query(url)} is the last of more than {_REDIRECTS} redirects; name the image itself."
    )


def _body(url: str, status: int, body: bytes, policy: ImagePolicy) -> bytes:
    if status == 200:
        return body
    if status in (404, 410):
        raise _missing(url, policy)
    if status in _TRANSIENT:
        raise _unreadable(url, f"its server answered {status}")
    raise ImageNotAllowed(f"{without_query(url)} is not given out: its server answered {status}; check the URL.")


def _missing(url: str, policy: ImagePolicy) -> PoseError:
    kind = ImageNotReady if policy.wait_for_missing else ImageNotFound
    return kind(f"{without_query(url)} does not exist; check the URL.")


def _unreadable(url: str, why: object) -> PoseError:
    return ImageUnreadable(f"{without_query(url)} could not be read ({why}); it is tried again.")


def _too_large(url: str, policy: ImagePolicy) -> PoseError:
    return ImageTooLarge(
        f"{without_query(url)} is too large: more than {policy.max_bytes} bytes; send a smaller image."
    )
