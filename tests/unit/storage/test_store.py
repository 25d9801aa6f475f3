"""Overlays are kept whole, under the same key, until they expire."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
import redis

from tests.support import wait_until
from worker.errors import SettingsError, StorageUnavailable
from worker.storage.file import FileStore
from worker.storage.sweeper import Sweeper
from worker.storage.urls import open_store


@pytest.fixture(params=["file", pytest.param("redis", marks=pytest.mark.queue)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return tmp_path.as_uri() if request.param == "file" else request.getfixturevalue("broker")


def test_what_is_put_can_be_got_replaced_and_deleted(url: str) -> None:
    store = open_store(url, prefix="test")
    stored = store.put("overlay/a.jpg", b"first", media_type="image/jpeg", ttl_s=60)
    assert (stored.bytes, stored.media_type) == (5, "image/jpeg")
    assert stored.sha256 == hashlib.sha256(b"first").hexdigest()
    assert stored.expires_at == pytest.approx(time.time() + 60, abs=5)
    assert store.put("overlay/a.jpg", b"second", media_type="image/jpeg", ttl_s=60).url == stored.url
    assert store.get("overlay/a.jpg", 100) == b"second"
    store.delete("overlay/a.jpg")
    store.delete("overlay/a.jpg")  # once more: nothing happens
    with pytest.raises(StorageUnavailable):
        store.get("overlay/a.jpg", 100)


@pytest.mark.queue
def test_redis_objects_expire_and_their_urls_hold_no_password(broker: str, redis_client: redis.Redis) -> None:
    stored = open_store(broker, prefix="test").put("k.jpg", b"x", media_type="image/jpeg", ttl_s=60)
    assert 50 < redis_client.ttl("test:k.jpg") <= 60
    assert stored.url == "redis:///test%3Ak.jpg"


def test_files_are_swept_when_they_expire(tmp_path: Path) -> None:
    store = FileStore(tmp_path.as_uri())
    store.put("old.jpg", b"x", media_type="image/jpeg", ttl_s=60)
    store.put("new.jpg", b"x", media_type="image/jpeg", ttl_s=60)
    os.utime(tmp_path / "old.jpg", (1, 1))
    for name, age_s in (("killed", 7200), ("writing", 1)):
        (tmp_path / f".{name}.jpg.part").write_bytes(b"half")
        os.utime(tmp_path / f".{name}.jpg.part", (time.time() - age_s,) * 2)
    assert store.sweep() == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing.jpg.part", "new.jpg"]


def test_workers_sweep_by_themselves(tmp_path: Path) -> None:
    store = FileStore(tmp_path.as_uri())
    store.put("overlay/old.jpg", b"x", media_type="image/jpeg", ttl_s=1)
    sweeper = Sweeper(store, keep_s=1)
    sweeper.start()
    try:
        wait_until(lambda: not (tmp_path / "overlay/old.jpg").exists())
    finally:
        sweeper.stop()


def test_a_store_that_is_away_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageUnavailable, match="check that it is up"):
        open_store((tmp_path / "file").as_uri()).put("a.jpg", b"x", media_type="image/jpeg", ttl_s=60)
    with pytest.raises(StorageUnavailable, match="check that it is up"):
        open_store("redis://127.0.0.1:1/0").put("a.jpg", b"x", media_type="image/jpeg", ttl_s=60)


def test_a_half_written_file_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path.as_uri())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageUnavailable, match="No space left"):
        store.put("a.jpg", b"x", media_type="image/jpeg", ttl_s=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["../escape.jpg", "/etc/passwd", "a/../../b", ""])
def test_keys_stay_below_the_store(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        open_store(tmp_path.as_uri()).put(key, b"x", media_type="image/jpeg", ttl_s=60)


def test_other_stores_are_refused() -> None:
    with pytest.raises(SettingsError, match="POSE_OVERLAY_STORE"):
        open_store("ftp://example.org/a")
