"""A film's file, open: where it lies, or a copy of it that this host keeps for as long as parts of its work come."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Callable, Iterator

from worker.errors import PermanentError
from worker.files import printable, replacing
from worker.images.local import opened
from worker.images.policy import ImagePolicy, is_remote, local_path
from worker.images.remote import read_remote
from worker.images.uploads import checked_upload, is_upload

#: Seconds for which a copy is kept after its last use.
_KEEP_S = 600.0


class Films:
    """The films of one worker's jobs.

    Args:
        folder: for the copies; this user's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_user(cls) -> Films:
        """Those that all workers of this user on this host share."""
        return cls(Path(tempfile.gettempdir()) / f"pose-films-{os.getuid()}")

    @contextmanager
    def opened(self, path: str, film_id: str, policy: ImagePolicy, uploaded: Callable[[], bytes]) -> Iterator[BinaryIO]:
        """The film at `path`, a path or a file://, s3:// or https:// URL, or ``upload:`` and a SHA-256.

        Args:
            film_id: the job's id.
            uploaded: gives the bytes that were sent with the job.

        Raises:
            ImageNotFound, ImageNotAllowed, ImageTooLarge, ImageUndecodable: what is wrong with it.
            ImageNotReady, ImageUnreadable: worth another try.
        """
        if is_remote(path) or is_upload(path):
            with self._copy(path, film_id, policy, uploaded) as file:
                yield file
        else:
            with opened(local_path(path), printable(path), policy) as file:
                yield file

    @contextmanager
    def _copy(self, path: str, film_id: str, policy: ImagePolicy, uploaded: Callable[[], bytes]) -> Iterator[BinaryIO]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        status = self._folder.lstat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077 or self._folder.is_symlink():
            raise PermanentError(f"{self._folder} is not a folder of this user alone; remove it, or set TMPDIR.")
        self._sweep()
        copy = self._folder / hashlib.sha256(f"{film_id} {path}".encode(errors="surrogateescape")).hexdigest()
        with copy.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one slot fetches it, and the others wait
            if not copy.exists():
                with replacing(copy) as file:
                    if is_upload(path):
                        file.write(checked_upload(uploaded(), path, policy))
                    else:
                        read_remote(path, policy, file)
            os.utime(copy)
            file = copy.open("rb")
        with file:
            yield file

    def _sweep(self) -> None:
        before = time.time() - _KEEP_S
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < before:
                    path.unlink()
