"""How far the films of a batch are, looked at while it waits."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Callable, Dict, Optional

from worker.client import PoseClient, Progress
from worker.errors import BrokerUnavailable
from worker.files import printable

#: Seconds between two looks at a film, and most films that are looked at each time: one round trip each.
_PAUSE_S, _MOST = 1.0, 4


class FilmProgress:
    """Looks at films that are in work, now and then.

    Args:
        show: called with the first film's progress, as a line.
    """

    def __init__(self, client: PoseClient, show: Callable[[str], None]) -> None:
        self._client, self._show = client, show
        self._open: Dict[str, str] = {}
        self._seen: Dict[str, Progress] = {}
        self._next = 0.0

    def add(self, job_id: str, name: str) -> None:
        """A film has been submitted."""
        self._open[job_id] = name

    def remove(self, job_id: str) -> None:
        """It has ended."""
        self._open.pop(job_id, None)
        self._seen.pop(job_id, None)

    def look(self) -> bool:
        """To be called while no job ends; whether one of the films has got further."""
        if not self._open or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _PAUSE_S
        before = {**self._seen}
        with suppress(BrokerUnavailable):  # whoever waits for the results says so
            for job_id in list(self._open)[:_MOST]:
                self._seen[job_id] = self._client.progress(job_id)
        first = next(iter(self._open))
        if first in self._seen:
            self._show(in_words(self._open[first], self._seen[first]))
        return any(_is_further(before.get(job_id), now) for job_id, now in self._seen.items())


def _is_further(before: Optional[Progress], now: Progress) -> bool:
    return before is not None and (before.phase, before.done) != (now.phase, now.done)


def in_words(name: str, progress: Progress) -> str:
    """One line: the film, its phase, segments, frames a second and seconds that are left."""
    words = [f"{printable(name)}: {progress.phase}"]
    if progress.segments:
        words.append(f"{progress.done}/{progress.segments} segments")
    if progress.frames_per_s is not None:
        words.append(f"{progress.frames_per_s:.0f} frames/s")
    if progress.eta_s is not None:
        words.append(f"{_clock(progress.eta_s)} left")
    return ", ".join(words)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
