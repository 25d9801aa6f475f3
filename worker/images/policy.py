"""What may be read: below which folders and URLs, how large, and whether it may still come.

A root is a folder, or the beginning of a URL: ``s3://photos/2026``, ``https://images.example.org/public``. It allows
what lies below it and nothing else; of an https:// root, host and port must be the same, too. A URL with a part that
some server may read as the folder above is refused, in whichever way it is written.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from worker.contract import without_query
from worker.errors import ImageNotAllowed, SettingsError
from worker.files import printable
from worker.storage import s3

#: Schemes of URLs that are fetched.
_REMOTE = ("s3", "https")
#: How often a path may be encoded.
_MOST_DECODED = 8
#: A character as IIS and JavaScript escape it.
_U_ESCAPE = re.compile(r"%u([0-9a-fA-F]{4})")
#: ASCII in more bytes than it needs, which is no UTF-8 (RFC 3629, section 3), but is read as such by careless servers.
_OVERLONG = re.compile(rb"[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]")


@dataclass(frozen=True)
class ImagePolicy:
    """What may be read.

    Attributes:
        roots: folders and URLs below which images may be read; symbolic links are resolved first.
        max_bytes: largest file, in bytes.
        max_pixels: largest image, in pixels.
        max_aspect: longest side divided by the shortest.
        wait_for_missing: whether a missing file may still come, and is so a transient failure.
        url_timeout_s: seconds within which an image must have come from its URL.
        private_hosts: hosts that may have addresses which are not public.
    """

    roots: Tuple[str, ...]
    max_bytes: int = 64 << 20
    max_pixels: int = 64_000_000
    max_aspect: float = 100.0
    wait_for_missing: bool = False
    url_timeout_s: float = 20.0
    private_hosts: Tuple[str, ...] = ()

    def allows_file(self, real: str) -> bool:
        """Whether `real`, a path without links, lies below an allowed folder."""
        folders = [os.path.realpath(local_path(root)) for root in self.roots if not is_remote(root)]
        return any(_is_below(real, folder) for folder in folders)

    def allows_url(self, url: str) -> bool:
        """Whether `url` lies below an allowed one."""
        wanted = _located(url)
        allowed = [_located(root) for root in self.roots if is_remote(root)]
        return wanted is not None and any(
            root is not None and root.server == wanted.server and _is_below(wanted.path, root.path) for root in allowed
        )


def is_remote(path: str) -> bool:
    """Whether `path` is a URL that is fetched."""
    scheme, colon, _ = path.partition("://")
    return bool(colon) and scheme.lower() in _REMOTE


def local_path(path: str) -> str:
    """The path that `path`, a path or a file:// URL, names.

    Raises:
        ImageNotAllowed: it is a URL of another kind.
    """
    if "://" not in path:
        return path
    try:
        parts = urlsplit(path)
    except ValueError:  # its brackets do not close
        parts = urlsplit("")
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        shown = printable(without_query(path))
        raise ImageNotAllowed(f"{shown} is not a path or a file://, s3:// or https:// URL; send one of these.")
    return unquote(parts.path, errors="surrogateescape")


def check_root(root: str) -> None:
    """Raises SettingsError if `root` is a URL that allows nothing, or that needs what is not installed."""
    scheme, colon, _ = root.partition("://")
    if not colon or scheme == "file":
        return
    if scheme not in _REMOTE or not urlsplit(root).netloc or "@" in urlsplit(root).netloc:
        raise SettingsError(
            f"POSE_IMAGE_ROOTS has {without_query(root)!r}, which is no folder and no file://, s3:// or https:// URL; "
            "correct it."
        )
    if scheme == "s3":
        s3.check()


class _Located(NamedTuple):
    """A URL's server, which is the same for all that one root may allow, and the path there."""

    server: Tuple[str, str, int]
    path: str


def _located(url: str) -> Optional[_Located]:
    """None if `url` is no URL that is fetched, or has a path that climbs."""
    try:
        if url.startswith("s3://"):
            bucket, key = s3.split(url)
            return None if _climbs(key) else _Located(("s3", bucket, 0), f"/{key}")
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or "\\" in url:
            return None
        if _climbs(parts.path):
            return None
        return _Located(("https", parts.hostname, parts.port or 443), parts.path)
    except ValueError:
        return None


def _climbs(path: str) -> bool:
    """Whether some server may read a part of `path` as ``.`` or ``..``.

    Servers decode once or several times, take backslashes for slashes, cut parameters (``..;a``), control characters
    and blanks off, and turn letters that look like dots or slashes into these.

    Raises:
        ValueError: it is not text.
    """
    for _ in range(_MOST_DECODED):
        before, data = path, unquote_to_bytes(_U_ESCAPE.sub(lambda found: chr(int(found[1], 16)), path))
        path = unicodedata.normalize("NFKC", data.decode(errors="replace"))
        if path == before or _OVERLONG.search(data):
            break
    if path != before:
        return True
    parts = (re.split("[;?#]", part)[0] for part in re.split(r"[/\\\u2044\u2215\u2216]", path))
    return any(re.fullmatch(r"\.+", re.sub(r"[\s\x00-\x1f\x7f-\x9f\ufffd]", "", part)) for part in parts)


def _is_below(path: str, root: str) -> bool:
    root = root.rstrip("/")
    return path == root or path.startswith(root + "/")
