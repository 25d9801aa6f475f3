"""What the processes of one worker have counted, in shared memory: each writes its own rows, the parent reads all.

A row outlives the process that writes it, so that counts go on where a slot is replaced. Every field is one aligned
8-byte number with one writer: no lock is needed, and a reader never meets half a number.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left
from typing import Iterator, List, Sequence, Tuple, Type

from worker.errors import PoseError

#: Upper bounds of the histograms' buckets; one more bucket takes what is beyond.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
WAITS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PEOPLE = (0, 1, 2, 3, 5, 8, 13, 20, 30, 50)
ATTEMPTS = (1, 2, 3, 4, 5, 10, 20, 50, 100)
_MOST_BOUNDS = 15

#: A job's stages, in the order in which they run; the names are those of ``timings_ms``.
STAGES = ("decode", "preprocess", "net", "associate", "parts", "overlay", "store")
#: What a message can end in: a result, a permanent failure, another attempt later, a dead letter, nothing (another
#: message of the job was first), parts that the work of a film goes on in, the death of its slot.
OUTCOMES = ("succeeded", "failed", "retried", "dead", "ignored", "continued", "lost")


def _tree(error: Type[BaseException]) -> Iterator[str]:
    yield error.__name__
    for kind in error.__subclasses__():
        yield from _tree(kind)


#: Every error of the project by name; what is none of them counts as the first.
ERRORS = ("other", *sorted(_tree(PoseError)))


class Histogram(ctypes.Structure):
    """How many values lay in which bucket, and their sum; the bounds are the caller's constant."""

    _fields_ = (("total", ctypes.c_double), ("counts", ctypes.c_int64 * (_MOST_BOUNDS + 1)))

    def observe(self, value: float, bounds: Sequence[float]) -> None:
        """Count `value` in the first bucket whose bound is not below it."""
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value


class JobTally(ctypes.Structure):
    """One slot's jobs, and the segments and frames of films, which are none."""

    _fields_ = (
        ("starts", ctypes.c_int64),
        ("segments", ctypes.c_int64),
        ("frames", ctypes.c_int64),
        ("outcomes", ctypes.c_int64 * len(OUTCOMES)),
        ("errors", ctypes.c_int64 * len(ERRORS)),
        ("seconds", Histogram),
        ("wait", Histogram),
        ("stages", Histogram * len(STAGES)),
        ("people", Histogram),
        ("attempts", Histogram),
    )

    def count(self, outcome: str, error: str = "") -> None:
        """Count an outcome, and the class of the error that it was."""
        self.outcomes[OUTCOMES.index(outcome)] += 1
        if error:
            self.errors[ERRORS.index(error) if error in ERRORS else 0] += 1

    def stage(self, name: str, seconds: float) -> None:
        """Count the time of one stage; one that is not in STAGES is not counted."""
        if name in STAGES:
            self.stages[STAGES.index(name)].observe(seconds, SECONDS)


def merged(histograms: Sequence[Histogram], bounds: Sequence[float]) -> Tuple[List[Tuple[str, float]], float]:
    """Several processes' histograms as one: cumulative counts by bound (the last is ``+Inf``), and the sum."""
    buckets, reached = [], 0
    for index, bound in enumerate([*bounds, float("inf")]):
        reached += sum(one.counts[index] for one in histograms)
        buckets.append(("+Inf" if bound == float("inf") else f"{float(bound)}", float(reached)))
    return buckets, sum(one.total for one in histograms)
