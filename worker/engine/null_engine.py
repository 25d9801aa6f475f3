"""A net that finds nobody, in a given time: for measuring, and for testing, everything around a net."""

from __future__ import annotations

import os
import time
from typing import Sequence, Tuple

import numpy as np

from worker.engine.manifest import Manifest
from worker.engine.net import Maps, empty_maps

#: Milliseconds that each pass and each frame in it take, e.g. ``1.5+3``; read from the environment of the process.
VARIABLE = "NULL_NET_MS"


class NullNet:
    """Maps of zeros after a sleep; see :class:`worker.engine.net.Net`."""

    def __init__(self, manifest: Manifest, *, device: str, precision: str) -> None:
        self.manifest, self.device, self.precision = manifest, device, precision
        per_pass, _, per_frame = os.environ.get(VARIABLE, "0").partition("+")
        self._pass_s, self._frame_s = float(per_pass) / 1000, float(per_frame or 0) / 1000

    def __call__(self, frames: np.ndarray) -> Maps:
        """Zeros for the frames."""
        maps = empty_maps(self.manifest, len(frames), frames.shape[1:3])
        self.fill([frames], [maps])
        return maps

    def fill(self, frames: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        """Zeros where the maps are wanted."""
        pause_s = self._pass_s + self._frame_s * sum(map(len, frames))
        if pause_s:  # the kernel takes a while even for a sleep of no time
            time.sleep(pause_s)
        for heatmaps, pafs in maps:
            heatmaps[...] = 0
            pafs[...] = 0

    def run(self, batch: np.ndarray) -> Maps:
        """Zeros for a normalised batch."""
        maps = empty_maps(self.manifest, len(batch), batch.shape[2:4])
        for array in maps:
            array[...] = 0
        return maps

    def warm(self, sizes: Sequence[Tuple[int, int]]) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to close."""
