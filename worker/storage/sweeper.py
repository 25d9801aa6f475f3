"""Files do not expire by themselves: where overlays are files, every worker removes those whose time is over."""

from __future__ import annotations

from typing import Optional
from urllib.parse import urlsplit

from worker.children import Rounds
from worker.settings import Settings
from worker.storage.file import FileStore

#: Seconds between two sweeps: a tenth of the time for which overlays are kept, within these.
_PAUSE_S = (1.0, 600.0)


class Sweeper(Rounds):
    """A thread that sweeps `store`, whose files are kept for `keep_s` seconds."""

    def __init__(self, store: FileStore, keep_s: float) -> None:
        super().__init__("sweeper", min(max(keep_s / 10, _PAUSE_S[0]), _PAUSE_S[1]), store.sweep)


def sweeper(settings: Settings) -> Optional[Sweeper]:
    """The sweeper of a worker; None where overlays expire by themselves (Redis), or by the bucket's rule (S3)."""
    if urlsplit(settings.overlays_url).scheme != "file":
        return None
    return Sweeper(FileStore(settings.overlays_url, settings.key_prefix), settings.result_expires_s)
