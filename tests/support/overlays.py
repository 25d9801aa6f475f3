"""What a result says of an overlay, as a worker writes it or wrong on purpose."""

from __future__ import annotations

import hashlib
from typing import Any

from worker.contract import Overlay

#: What nobody but its owner may read.
SECRET = b"the key to everything"


def described(url: str, data: bytes = SECRET, media_type: str = "image/jpeg", **wrong: Any) -> Overlay:
    """What a result says of `data` at `url`, right but for `wrong`."""
    right = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "expires_at": None}
    return Overlay(url=url, media_type=media_type, **{**right, **wrong})
