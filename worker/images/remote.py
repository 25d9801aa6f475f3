"""Images by URL: ``s3://bucket/key`` and ``https://host/path``, read only, below an allowed root, so many bytes.

A root is the beginning of a URL: ``s3://photos/2026``, ``https://images.example.org/public``. It allows what is below
it and nothing else; of an https:// root that includes the host and the port. Redirects are followed a few times, each
to a place that a root allows, too. For addresses see :mod:`worker.public_http`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Tuple
from urllib.parse import unquote, urljoin, urlsplit

from worker.contract import without_query
from worker.errors import (
    ImageNotAllowed,
    ImageNotFound,
    ImageNotReady,
    ImageTooLarge,
    ImageUnreadable,
    PoseError,
    SettingsError,
)
from worker.public_http import Oversized, exchange
from worker.storage import s3

if TYPE_CHECKING:
    from worker.images.local import ImagePolicy

SCHEMES = ("s3", "https")
_REDIRECTS = 3
#: Answers that may be others a little later.
_PASSING = (408, 425, 429, *range(500, 600))


def is_remote(path: str) -> bool:
    """Whether `path` is a URL that is read here."""
    return path.partition("://")[0].lower() in SCHEMES and "://" in path


def check_root(root: str) -> None:
    """Raises SettingsError if `root` is a URL that allows nothing, or that needs what is not installed."""
    scheme, colon, _ = root.partition("://")
    if not colon or scheme == "file":
        return
    if scheme not in SCHEMES or not urlsplit(root).netloc or "@" in urlsplit(root).netloc:
        raise SettingsError(
            f"POSE_IMAGE_ROOTS has {without_query(root)!r}, which is no folder and no file://, s3:// or https:// URL; "
            "correct it."
        )
    if scheme == "s3":
        s3.check()


def read_remote(url: str, policy: ImagePolicy) -> bytes:
    """The bytes at `url`.

    Raises:
        ImageNotAllowed: no root allows it, or its server does not.
        ImageNotFound, ImageTooLarge: see there.
        ImageNotReady, ImageUnreadable: worth another try.
    """
    if not _allowed(url, policy):
        raise ImageNotAllowed(
            f"{without_query(url)} is below no URL of this worker's POSE_IMAGE_ROOTS; add one to allow it."
        )
    return _from_s3(url, policy) if url.startswith("s3://") else _from_web(url, policy)


def _allowed(url: str, policy: ImagePolicy) -> bool:
    place = _place(url)
    if place is None:
        return False
    for root in policy.roots:
        allowed = _place(root) if is_remote(root) else None
        if allowed and place[0] == allowed[0]:
            below = allowed[1].rstrip("/")
            if place[1] == below or place[1].startswith(below + "/"):
                return True
    return False


def _place(url: str) -> Optional[Tuple[Tuple[str, str, int], str]]:
    """What tells one store from another, and the path in it; None if the URL is none, or has a path that climbs."""
    try:
        if url.startswith("s3://"):
            bucket, key = s3.split(url)
            return ("s3", bucket, 0), f"/{key}"
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or "\\" in url:
            return None
        steps = unquote(parts.path).split("/")
        return None if {".", ".."} & set(steps) else (("https", parts.hostname, parts.port or 443), parts.path)
    except ValueError:
        return None


def _from_s3(url: str, policy: ImagePolicy) -> bytes:
    path, files = "/".join(s3.split(url)), s3.filesystem()
    try:
        found = files.info(path)
        if found["type"] != "file":  # what lies below it is not it
            raise FileNotFoundError(path)
        size = int(found["size"] or 0)
        if size > policy.max_bytes:
            raise _too_large(url, policy)
        data: bytes = files.cat_file(path, start=0, end=policy.max_bytes + 1) if size else b""
    except FileNotFoundError as exc:
        raise _missing(url, policy) from exc
    except PermissionError as exc:
        raise ImageNotAllowed(f"{url} may not be read ({exc}); check the worker's rights in its bucket.") from exc
    except s3.errors() as exc:
        raise _unreadable(url, exc) from exc
    if len(data) > policy.max_bytes:  # it has grown since
        raise _too_large(url, policy)
    return data


def _from_web(url: str, policy: ImagePolicy) -> bytes:
    for _ in range(_REDIRECTS + 1):
        try:
            answer = exchange(
                "GET",
                url,
                timeout_s=policy.url_timeout_s,
                max_bytes=policy.max_bytes,
                private_hosts=policy.private_hosts,
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
        if not _allowed(target, policy):
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
    if status in _PASSING:
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


__all__ = ["check_root", "is_remote", "read_remote", "without_query"]
