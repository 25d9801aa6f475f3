"""Images in order, such as the frames of a film: the same person under the same id (``worker submit --track``)."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Tuple

import numpy as np

from worker.client.outcome import Outcome
from worker.contract import Result
from worker.people import from_people, to_people, to_skeleton
from worker.pose.skeleton import Skeleton
from worker.pose.smoothing import Smoother
from worker.pose.tracking import Tracker


class Track:
    """Follows people over images that come in order.

    Args:
        fps: images a second.
        cutoff: Hz, of :class:`worker.pose.smoothing.Smoother`; None: positions stay as they were found.
    """

    def __init__(self, fps: float, cutoff: Optional[float] = None) -> None:
        self._fps, self._frame = fps, 0
        self._skeleton: Optional[Skeleton] = None
        self._smoother = None if cutoff is None else Smoother(cutoff)

    def follow(self, outcome: Outcome) -> Tuple[Outcome, Optional[Tuple[int, ...]]]:
        """The next image's outcome, smoothed if that is wanted, and its people's ids; None where there is no result."""
        time_s = self._frame / self._fps
        self._frame += 1
        if not isinstance(outcome, Result):
            return outcome, None
        skeleton = to_skeleton(outcome)
        if skeleton != self._skeleton:  # at the first image, and where another net has looked
            self._skeleton, self._tracker = skeleton, Tracker(np.array(skeleton.sigmas))
        people = to_people(outcome.people, skeleton)
        ids = self._tracker.update(people.keypoints, time_s)
        if self._smoother is not None:
            smooth = replace(people, keypoints=self._smoother.update(people.keypoints, ids, time_s))
            outcome = outcome.model_copy(update={"people": from_people(smooth)})
        return outcome, tuple(ids.tolist())
