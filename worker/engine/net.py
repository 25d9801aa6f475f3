"""The seam between the engines and everything above them."""

from __future__ import annotations

from typing import Mapping, Protocol, Sequence, Tuple

import numpy as np

from worker.engine.manifest import Manifest
from worker.errors import ModelError

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


def map_shapes(manifest: Manifest, count: int, sides: Sequence[int]) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    """The shapes of heatmaps and of PAFs for `count` frames of (height, width) `sides`."""
    height, width = (side // manifest.input.stride for side in sides)
    heatmaps, pafs = ((count, spec.stop - spec.start, height, width) for spec in (manifest.heatmaps, manifest.pafs))
    return heatmaps, pafs


def empty_maps(manifest: Manifest, count: int, sides: Sequence[int]) -> Maps:
    """Unwritten maps for `count` frames of (height, width) `sides`."""
    heatmaps, pafs = map_shapes(manifest, count, sides)
    return np.empty(heatmaps, np.float32), np.empty(pafs, np.float32)


def check_sides(manifest: Manifest, sides: Sequence[int]) -> None:
    """Raise ValueError unless (height, width) `sides` are what the net of `manifest` can be fed."""
    stride = manifest.input.stride
    if len(sides) != 2 or any(side < stride or side % stride for side in sides):
        raise ValueError(f"expected sides that are multiples of {stride}, got {tuple(sides)}")


def probe_side(manifest: Manifest) -> int:
    """The side of the small image that outputs are checked with."""
    return 8 * manifest.input.stride


def check_outputs(manifest: Manifest, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Compare the shapes that output blobs have for a square image of :func:`probe_side` with the manifest.

    Raises:
        ModelError: an output has too few channels, or another stride than the one promised.
    """
    side = probe_side(manifest)
    for spec in (manifest.heatmaps, manifest.pafs):
        shape = tuple(shapes[spec.blob])
        if len(shape) != 4 or shape[1] < spec.stop or shape[2:] != (8, 8):
            raise ModelError(
                f"The net {name!r} makes its output {spec.blob!r} in the shape {shape} of a {side}x{side} image, "
                f"but its model.json promises {spec.stop} channels at stride {manifest.input.stride}; correct it."
            )
