"""Files do not expire by themselves: where overlays are files, every worker removes those whose time is over."""

from __future__ import annotations

import threading
from typing import Any, Optional
from urllib.parse import urlsplit

from celery import bootsteps
from celery.utils.log import get_logger

from worker.errors import StorageUnavailable
from worker.settings import settings
from worker.storage.file import FileStore

logger = get_logger(__name__)

#: Seconds between two sweeps: a tenth of the time for which overlays are kept, within these.
_PAUSE_S = (1.0, 600.0)


class Sweeper:
    """A thread that sweeps `store`, whose files are kept for `keep_s` seconds."""

    def __init__(self, store: FileStore, keep_s: float) -> None:
        self._store, self._pause_s = store, min(max(keep_s / 10, _PAUSE_S[0]), _PAUSE_S[1])
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="sweeper", daemon=True).start()

    def stop(self) -> None:
        """Leave the rest to other workers."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._pause_s):
            try:
                self._store.sweep()
            except StorageUnavailable as exc:
                logger.warning("Expired overlays stay for now: %s", exc)


class Sweep(bootsteps.StartStopStep):
    """Sweeps while the worker consumes."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._sweeper: Optional[Sweeper] = None

    def include_if(self, worker: Any) -> bool:
        """In Redis they expire by themselves, in S3 by the bucket's rule."""
        return urlsplit(settings().overlays_url).scheme == "file"

    def start(self, worker: Any) -> None:
        """Begin."""
        store = FileStore(settings().overlays_url, settings().key_prefix)
        self._sweeper = Sweeper(store, settings().result_expires_s)

    def stop(self, worker: Any) -> None:
        """No more."""
        if self._sweeper is not None:
            self._sweeper.stop()

    terminate = stop
