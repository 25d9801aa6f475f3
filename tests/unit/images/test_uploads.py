"""Images that came with their jobs: what is wrong with one is said in a sentence."""

from __future__ import annotations

import base64
import hashlib

import pytest

from worker import errors
from worker.images.local import read_image
from worker.images.policy import ImagePolicy
from worker.images.uploads import checked_upload, data_of

POLICY = ImagePolicy(roots=(), max_bytes=10)
NAME = "upload:" + hashlib.sha256(b"bytes").hexdigest()


def test_what_is_named_is_taken() -> None:
    assert checked_upload(b"bytes", NAME, POLICY) == b"bytes"
    assert read_image(f"data:image/png;base64,{base64.b64encode(b'bytes').decode()}", POLICY) == b"bytes"
    assert data_of(f"data:;base64,{base64.b64encode(b'bytes').decode()}", POLICY) == b"bytes"


@pytest.mark.parametrize(
    ("data", "name", "kind", "sentence"),
    [
        (b"", NAME, errors.ImageNotFound, "or has expired; submit it again"),
        (b"other", NAME, errors.ImageUndecodable, "by its SHA-256"),
        (bytes(11), NAME, errors.ImageTooLarge, "more than 10 bytes"),
        (b"bytes", "upload:", errors.ImageNotFound, "names no upload"),
        (b"bytes", f"{NAME[:-1]}G", errors.ImageNotFound, "names no upload"),
        (b"bytes", f"{NAME}\n", errors.ImageNotFound, "names no upload"),
    ],
)
def test_what_is_not_is_refused(data: bytes, name: str, kind: type, sentence: str) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        checked_upload(data, name, POLICY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:", errors.ImageUndecodable),
        ("data:image/png;base64", errors.ImageUndecodable),
        ("data:image/png,%89PNG", errors.ImageUndecodable),
        ("data:image/png;base64,@@@@", errors.ImageUndecodable),
        ("data:image/png;base64,AAA", errors.ImageUndecodable),
        ("data:image/png;base64,é", errors.ImageUndecodable),
        ("data:image/png;base64,", errors.ImageUndecodable),
        ("data:image/png;base64," + "AAAA" * 5, errors.ImageTooLarge),
        ("data:" + "x" * 3000 + ",", errors.ImageUndecodable),
    ],
)
def test_a_wrong_data_url_is_refused_without_its_data(url: str, kind: type) -> None:
    with pytest.raises(kind) as caught:
        read_image(url, POLICY)
    assert "AAAA" not in str(caught.value)
    assert len(str(caught.value)) < 300
