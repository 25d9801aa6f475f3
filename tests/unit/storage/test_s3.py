"""Images out of S3 and overlays into it, against a server that speaks its protocol."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, Iterator

import cv2
import numpy as np
import pytest

from tests.support.brokers import free_port
from tests.support.objects import use
from worker.contract import Overlay
from worker.errors import (
    ImageNotAllowed,
    ImageNotFound,
    ImageNotReady,
    ImageTooLarge,
    ImageUndecodable,
    ImageUnreadable,
    SettingsError,
    StorageUnavailable,
)
from worker.images.local import load_image
from worker.images.policy import ImagePolicy
from worker.storage import s3
from worker.storage.urls import delete, fetch, open_store

pytestmark = [
    pytest.mark.queue,
    # botocore's and aiobotocore's own
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),
]

PHOTO = bytes(cv2.imencode(".png", np.full((40, 30, 3), 7, np.uint8))[1])


@pytest.fixture(scope="module")
def bucket(object_store: str) -> Iterator[str]:
    """A bucket with a photograph in it, inside and outside of the folder ``in``."""
    patch = pytest.MonkeyPatch()
    use(object_store, patch)
    name = f"photos-{uuid.uuid4().hex[:8]}"
    files = s3.filesystem()
    files.mkdir(name)
    for key in ("in/deep/a.png", "secret/a.png", "in/odd name?x=1#y%20.png", "index/a.png"):
        files.pipe_file(f"{name}/{key}", PHOTO)
    files.pipe_file(f"{name}/in/empty.png", b"")
    yield name
    patch.undo()
    s3.forget()


@pytest.mark.parametrize("key", ["in/deep/a.png", "in/odd name?x=1#y%20.png"])
def test_an_image_below_a_root_is_read(bucket: str, key: str) -> None:
    picture = load_image(f"s3://{bucket}/{key}", ImagePolicy((f"s3://{bucket}/in",)))
    assert (picture.width, picture.height, picture.path) == (30, 40, f"s3://{bucket}/{key}")


@pytest.mark.parametrize("key", ["secret/a.png", "in/../secret/a.png", "in//../secret/a.png", "index/a.png", "in"])
def test_what_lies_beside_a_root_is_refused(bucket: str, key: str) -> None:
    with pytest.raises((ImageNotAllowed, ImageNotFound)) as caught:
        load_image(f"s3://{bucket}/{key}", ImagePolicy((f"s3://{bucket}/in", "/data")))
    assert caught.type is (ImageNotFound if key == "in" else ImageNotAllowed)


def test_another_bucket_is_refused(bucket: str) -> None:
    with pytest.raises(ImageNotAllowed, match="POSE_IMAGE_ROOTS"):
        load_image(f"s3://{bucket}2/in/deep/a.png", ImagePolicy((f"s3://{bucket}",)))


def test_missing_empty_and_large_objects(bucket: str) -> None:
    policy = ImagePolicy((f"s3://{bucket}",))
    with pytest.raises(ImageNotFound, match="does not exist"):
        load_image(f"s3://{bucket}/nowhere.png", policy)
    with pytest.raises(ImageNotReady):
        load_image(f"s3://{bucket}/nowhere.png", replace(policy, wait_for_missing=True))
    with pytest.raises(ImageUndecodable, match="empty"):
        load_image(f"s3://{bucket}/in/empty.png", policy)
    with pytest.raises(ImageTooLarge, match="more than 20 bytes"):
        load_image(f"s3://{bucket}/in/deep/a.png", replace(policy, max_bytes=20))


def test_a_server_that_is_away_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    use(f"http://127.0.0.1:{free_port()}", monkeypatch)
    with pytest.raises(ImageUnreadable, match="it is tried again"):
        load_image("s3://bucket/a.png", ImagePolicy(("s3://bucket",)))
    store = open_store("s3://bucket/overlays")
    for step in (lambda: store.put("a.jpg", b"x", media_type="image/jpeg", ttl_s=9), lambda: store.get("a.jpg", 1)):
        with pytest.raises(StorageUnavailable, match="check that it is up"):
            step()
    s3.forget()


def test_overlays_are_kept_replaced_and_deleted(bucket: str) -> None:
    store: Any = open_store(f"s3://{bucket}/drawn", prefix="pose")
    stored = store.put("overlay/j.jpg", b"first", media_type="image/jpeg", ttl_s=60)
    assert stored.url == f"s3://{bucket}/drawn/pose/overlay/j.jpg"
    assert (stored.bytes, stored.expires_at) == (5, None)
    again = store.put("overlay/j.jpg", b"second", media_type="image/jpeg", ttl_s=60)
    assert again.url == stored.url
    described = Overlay.model_validate(again, from_attributes=True)
    assert fetch(store, described, "j") == b"second"
    assert store.get("overlay/j.jpg", 2) == b"sec"
    assert s3.filesystem().info(stored.url)["ContentType"] == "image/jpeg"
    with pytest.raises(SettingsError, match="takes only"):
        fetch(store, described, "another")
    delete(store, described, "another")
    delete(store, described, "j")
    with pytest.raises(StorageUnavailable, match="may have expired"):
        store.get("overlay/j.jpg", 9)
    with pytest.raises(ValueError, match="key"):
        store.put("../up.jpg", b"x", media_type="image/jpeg", ttl_s=9)


def test_a_store_without_its_bucket_is_an_outage(bucket: str) -> None:
    store = open_store(f"s3://no-{bucket}/drawn")
    with pytest.raises(StorageUnavailable):
        store.put("a.jpg", b"x", media_type="image/jpeg", ttl_s=9)
