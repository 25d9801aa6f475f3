"""Files do not expire by themselves: where overlays are files, every worker removes those whose time is over."""

from __future__ import annotations

import logging
import threading
from typing import Optional
from urllib.parse import urlsplit

from worker.errors import StorageUnavailable
from worker.settings import Settings
from worker.storage.file import FileStore

logger = logging.getLogger(__name__)

#: Seconds between two sweeps: a tenth of the time for which overlays are kept, within these.
_PAUSE_S = (1.0, 600.0)


class Sweeper:
    """A thread that sweeps `store`, whose files are kept for `keep_s` seconds."""

    def __init__(self, store: FileStore, keep_s: float) -> None:
        self._store, self._pause_s = store, min(max(keep_s / 10, _PAUSE_S[0]), _PAUSE_S[1])
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Sweep from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the rest to other workers."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._pause_s):
            try:
                self._store.sweep()
            except StorageUnavailable as exc:
                logger.warning("Expired overlays stay for now: %s", exc)


def sweeper(settings: Settings) -> Optional[Sweeper]:
    """The sweeper of a worker; None where overlays expire by themselves (Redis), or by the bucket's rule (S3)."""
    if urlsplit(settings.overlays_url).scheme != "file":
        return None
    return Sweeper(FileStore(settings.overlays_url, settings.key_prefix), settings.result_expires_s)
