"""An overlay is fetched from the store that its reader knows, for one job, and only if it is as described."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from tests.support.overlays import SECRET, described
from worker.errors import JobFailed, SettingsError, StorageUnavailable
from worker.storage.urls import fetch, open_store

pytestmark = pytest.mark.queue


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the client's user, which nobody else may read."""
    path = tmp_path / "private" / "id_rsa"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.fixture(params=["redis", "file"])
def store_url(request: pytest.FixtureRequest, broker: str, tmp_path: Path) -> str:
    return broker if request.param == "redis" else (tmp_path / "store").as_uri()


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"sha256": ""}, {"bytes": 0}, {"bytes": 3}, {"bytes": 9999}], ids=str
)
def test_what_is_not_as_described_is_not_given_out(store_url: str, wrong: Dict[str, Any]) -> None:
    store = open_store(store_url, "pose")
    own = store.put("overlay/j.jpg", SECRET, media_type="image/jpeg", ttl_s=60)
    assert fetch(store, described(own.url), "j") == SECRET
    with pytest.raises(JobFailed, match="is not what the result of job j describes"):
        fetch(store, described(own.url, **wrong), "j")


def test_no_more_is_read_than_the_result_says(store_url: str) -> None:
    store = open_store(store_url, "pose")
    store.put("overlay/j.jpg", bytes(1 << 20), media_type="image/jpeg", ttl_s=60)
    assert len(store.get("overlay/j.jpg", 1000)) == 1001


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "", "../x"])
def test_what_no_job_stores_is_not_fetched(store_url: str, media_type: str) -> None:
    with pytest.raises(SettingsError, match="takes only pictures and maps"):
        fetch(open_store(store_url, "pose"), described("", media_type=media_type), "j")


@pytest.mark.parametrize("job_id", ["../../private/id_rsa", "a/../../b", "a/../b", "\0"])
def test_an_id_that_climbs_is_no_key(store_url: str, job_id: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        fetch(open_store(store_url, "pose"), described(""), job_id)


def _link(target: Path, secret: Path) -> None:
    target.symlink_to(secret)


def _linked_folder(target: Path, secret: Path) -> None:
    target.parent.rmdir()
    target.parent.symlink_to(secret.parent)
    (secret.parent / target.name).write_bytes(SECRET)


@pytest.mark.parametrize("plant", [_link, _linked_folder])
def test_links_out_of_a_folder_of_overlays_are_not_followed(
    secret: Path, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    target = tmp_path / "store" / "pose" / "overlay" / "j.jpg"
    target.parent.mkdir(parents=True)
    plant(target, secret)
    store = open_store((tmp_path / "store").as_uri(), "pose")
    with pytest.raises(StorageUnavailable):
        fetch(store, described(target.as_uri()), "j")


def test_a_folder_that_is_reached_by_a_link_is_a_store(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = open_store((tmp_path / "store").as_uri(), "pose")
    own = store.put("overlay/j.jpg", SECRET, media_type="image/jpeg", ttl_s=60)
    assert fetch(store, described(own.url), "j") == SECRET
