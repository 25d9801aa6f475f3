"""The seam between the engines and everything above them."""

from __future__ import annotations

from typing import Protocol, Sequence, Tuple

import numpy as np

from worker.engine.manifest import Manifest

#: Heatmaps float32 (N, 19, h, w) and part affinity fields float32 (N, 38, h, w).
Maps = Tuple[np.ndarray, np.ndarray]


class Net(Protocol):
    """A loaded net on one device."""

    manifest: Manifest
    device: str
    precision: str

    def __call__(self, frames: np.ndarray) -> Maps:
        """Run padded frames.

        Args:
            frames: uint8 (N, H, W, 3), BGR; H and W multiples of the stride. Normalised here, on the device.

        Returns:
            heatmaps float32 (N, 19, h, w) and PAFs float32 (N, 38, h, w) with h = H / stride, w = W / stride.

        Raises:
            DeviceOutOfMemory: the batch did not fit.
        """

    def fill(self, frames: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        """Run padded frames of equal size in one pass, and write their maps where they are wanted.

        Args:
            frames: as for :meth:`__call__`, in pieces.
            maps: for each piece, arrays of the maps' shapes, float32 or float16, that are written to.

        Raises:
            DeviceOutOfMemory: the batch did not fit.
            DeviceLost: the device does not work any more; only a new process can help.
        """

    def run(self, batch: np.ndarray) -> Maps:
        """Run a batch that is normalised already: float32 (N, 3, H, W) in the net's channel order."""

    def warm(self, sizes: Sequence[Tuple[int, int]]) -> None:
        """Run each (height, width) once, so that the first job pays for nothing."""

    def close(self) -> None:
        """Give the device's memory back; the net cannot be used afterwards."""
