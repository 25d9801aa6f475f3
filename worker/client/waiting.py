"""Looks for jobs that have ended: for all that are waited for at once, and less often while none ends."""

from __future__ import annotations

import time
from itertools import islice
from typing import Callable, Collection, Iterable, Iterator, List, Optional, Tuple, TypeVar

from worker.client.outcome import AnyOutcome, none_ended

Thing = TypeVar("Thing")
#: Seconds between two looks: doubled while no job ends, up to the second number.
_PAUSE_S = (0.01, 0.1)


class Waiting:
    """One wait for many jobs.

    Args:
        ended: as :meth:`worker.client.sync.PoseClient.ended`.
        timeout: seconds without any job ending after which TimeoutError is raised; None: never.
        check: called when no job has ended; what it raises ends the wait. Where it returns True, something went on, and
            the seconds are counted anew.

    Attributes:
        pause_s: seconds until the next look.
    """

    def __init__(
        self,
        ended: Callable[[Iterable[str]], Iterator[Tuple[str, AnyOutcome]]],
        timeout: Optional[float] = None,
        check: Callable[[], Optional[bool]] = lambda: None,
    ) -> None:
        self._ended, self._timeout, self._check = ended, timeout, check
        self._last, self.pause_s = time.monotonic(), _PAUSE_S[0]

    def look(self, job_ids: Collection[str]) -> List[Tuple[str, AnyOutcome]]:
        """Those of `job_ids` that have ended; one round trip."""
        found = list(self._ended(list(job_ids)))
        if found:
            self._last, self.pause_s = time.monotonic(), _PAUSE_S[0]
            return found
        if self._check():
            self._last = time.monotonic()
        if self._timeout is not None and time.monotonic() - self._last > self._timeout:
            raise TimeoutError(none_ended(len(job_ids), self._timeout))
        self.pause_s = min(self.pause_s * 2, _PAUSE_S[1])
        return found


def next_of(things: Iterator[Thing], taken: int, in_flight: Optional[int]) -> Iterator[Thing]:
    """Those of `things` that may be taken beside `taken` others: up to `in_flight`, but at least one; None: all."""
    return islice(things, None if in_flight is None else max(in_flight, 1) - taken)


__all__ = ["Waiting", "next_of"]
