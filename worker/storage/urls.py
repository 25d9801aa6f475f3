"""Stores by their URLs, and what a job keeps in one: its overlay and its maps."""

from __future__ import annotations

import hashlib
from typing import Optional
from urllib.parse import urlsplit

from worker.contract import Overlay
from worker.errors import JobFailed, SettingsError
from worker.files import printable
from worker.servers import is_redis, masked
from worker.storage.file import FileStore
from worker.storage.redis import RedisStore
from worker.storage.s3 import S3Store
from worker.storage.store import Store
from worker.video_contract import part_of

#: What jobs store, by its type: the key, with the job's id for the braces.
_KEYS = {
    "image/jpeg": "overlay/{}.jpg",
    "image/png": "overlay/{}.png",
    "video/mp4": "overlay/{}.mp4",
    "application/zip": "maps/{}.npz",
    "application/gzip": "keypoints/{}.jsonl.gz",
    "application/json": "plan/{}.json",
}


def open_store(url: str, prefix: str = "") -> Store:
    """The store at `url`: a Redis (see worker.servers), ``file:///folder`` or ``s3://bucket/prefix``.

    Raises:
        SettingsError: the URL is of another kind.
    """
    scheme = urlsplit(url).scheme
    if is_redis(url):
        return RedisStore(url, prefix)
    if scheme == "file":
        return FileStore(url, prefix)
    if scheme == "s3" and urlsplit(url).netloc:
        return S3Store(url, prefix)
    raise SettingsError(
        f"The overlay store cannot be {scheme or url!r}; set POSE_OVERLAY_STORE to redis://, file:// or s3://."
    )


def key_of(job_id: str, media_type: str) -> str:
    """The key of what job `job_id`, or a part of a film, stores of this type: its overlay, its maps, its keypoints.

    Raises:
        KeyError: no job stores such a thing.
    """
    part = part_of(job_id)
    return _KEYS[media_type].format("~".join(map(str, part)) if part else job_id)


def fetch(store: Store, stored: Overlay, job_id: str) -> bytes:
    """The overlay, or the maps, of job `job_id` from `store`, as its result describes them.

    Results are not trusted: nothing is looked up but what this job itself would have stored there.

    Raises:
        SettingsError: the result names another store, or what is not the job's own.
        JobFailed: what is there is not what the result describes.
        StorageUnavailable: the store does not answer, or the overlay has expired.
    """
    own = _own_url(store, stored, job_id)
    if stored.url != own:
        raise SettingsError(
            f"The result of job {job_id} names {printable(masked(stored.url)):.300}, but this client takes only "
            f"{own or 'pictures and maps'}; give it the workers' POSE_OVERLAY_STORE (overlay_store), if they keep "
            "overlays elsewhere."
        )
    data = store.get(key_of(job_id, stored.media_type), stored.bytes)
    if len(data) != stored.bytes or hashlib.sha256(data).hexdigest() != stored.sha256:
        raise JobFailed(f"{own} is not what the result of job {job_id} describes, by size or SHA-256; submit it again.")
    return data


def delete(store: Store, stored: Overlay, job_id: str) -> None:
    """Remove the overlay, or the maps, of job `job_id`. Files, and what is elsewhere, are left until they expire."""
    if stored.url == _own_url(store, stored, job_id) and not stored.url.startswith("file:"):
        store.delete(key_of(job_id, stored.media_type))


def _own_url(store: Store, stored: Overlay, job_id: str) -> Optional[str]:
    """Where the job has what `stored` is said to be; None if that is nothing that a job stores."""
    return store.url(key_of(job_id, stored.media_type)) if stored.media_type in _KEYS else None
