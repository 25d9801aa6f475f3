"""A net that finds nobody, in a given time: for measuring, and for testing, everything around a net."""

from __future__ import annotations

import os
import time
from typing import Sequence, Tuple

import numpy as np

from worker.engine.manifest import Manifest
from worker.engine.net import Maps, Net

#: Milliseconds that each pass and each input in it take, e.g. ``1.5+3``; read from the environment of the process.
VARIABLE = "NULL_NET_MS"


class NullNet(Net):
    """Maps of zeros after a sleep."""

    def __init__(self, manifest: Manifest, *, device: str, precision: str) -> None:
        super().__init__(manifest, device, precision)
        per_pass, _, per_input = os.environ.get(VARIABLE, "0").partition("+")
        self._pass_s, self._input_s = float(per_pass) / 1000, float(per_input or 0) / 1000

    def fill(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        """Zeros where the maps are wanted, after a while."""
        pause_s = self._pass_s + self._input_s * sum(map(len, inputs))
        if pause_s:  # the kernel takes a while even for a sleep of no time
            time.sleep(pause_s)
        for piece in maps:
            self.fill_normalised(inputs[0], piece)

    def fill_normalised(self, batch: np.ndarray, maps: Maps) -> None:
        """Zeros for a normalised batch."""
        for array in maps:
            array[...] = 0

    def warm(self, sizes: Sequence[Tuple[int, int]], batch: int = 1) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to close."""
