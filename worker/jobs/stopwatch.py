"""How long the stages of an attempt took."""

from __future__ import annotations

import time
from typing import Dict, List, NamedTuple, Optional


class Lap(NamedTuple):
    """One stage that has run; times are seconds since the attempt began."""

    stage: str
    begun: float
    ended: float


class Stopwatch:
    """Runs from when it is made.

    Attributes:
        laps: the stages that have run, in their order.
        timings_ms: milliseconds by stage, in the same order.
    """

    def __init__(self) -> None:
        self.laps: List[Lap] = []
        self.timings_ms: Dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, stage: str, *, parts: Optional[Dict[str, float]] = None) -> None:
        """End `stage`; `parts` (milliseconds) stand for it where the stage has timed itself in more detail."""
        now = time.perf_counter()
        spent = parts or {stage: (now - self._last) * 1000}
        self.timings_ms.update({name: round(ms, 3) for name, ms in spent.items()})
        begun = self._last - self._start
        for name, ms in spent.items():
            self.laps.append(Lap(name, begun, begun + ms / 1000))
            begun += ms / 1000
        self._last = now

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._start

    def total(self) -> Dict[str, float]:
        """All stages and, as ``total``, the time since it was made, in milliseconds."""
        return {**self.timings_ms, "total": round(self.seconds * 1000, 3)}
