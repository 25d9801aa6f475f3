"""What preprocessing did to an image, and the one way back to its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from worker.errors import ImageTooLarge

#: Largest input of the net, in pixels: what a 16:9 image has at height 2048. On a CPU the net takes 2 GB for it.
MAX_INPUT_PIXELS = 8_000_000


@dataclass(frozen=True)
class Geometry:
    """An image scaled by `scale`, then padded right and bottom to multiples of `stride`.

    Positions are pixel centres: the centre of the first pixel is (0, 0) at every scale, so x in the source is
    ``(x + 0.5) / scale - 0.5`` of x in the input, as OpenCV's resize has it.
    """

    source_height: int
    source_width: int
    scale: float
    stride: int
    #: How far right of and below the truth the net's answers lie, in pixels of the input.
    offset: Tuple[float, float] = (0.0, 0.0)

    @property
    def net_height(self) -> int:
        """Height of the scaled image, in pixels."""
        return max(1, round(self.source_height * self.scale))

    @property
    def net_width(self) -> int:
        """Width of the scaled image, in pixels."""
        return max(1, round(self.source_width * self.scale))

    @property
    def padded_height(self) -> int:
        """Height of the input, in pixels."""
        return -(-self.net_height // self.stride) * self.stride

    @property
    def padded_width(self) -> int:
        """Width of the input, in pixels."""
        return -(-self.net_width // self.stride) * self.stride

    @property
    def map_height(self) -> float:
        """Height of the image in the maps, without padding, in cells."""
        return self.net_height / self.stride

    @property
    def map_width(self) -> float:
        """Width of the image in the maps, without padding, in cells."""
        return self.net_width / self.stride

    def to_source(self, positions: np.ndarray) -> np.ndarray:
        """Map cells → source pixels.

        Args:
            positions: float (..., 2), x and y in cells of the net's maps.

        Returns:
            float32 (..., 2), x and y in source pixels, inside the image.
        """
        last = np.array([self.source_width, self.source_height]) - 1
        cells = positions - np.array(self.offset) / self.stride
        return np.clip((cells + 0.5) * (self.stride / self.scale) - 0.5, 0, last).astype(np.float32)


def plan(
    height: int,
    width: int,
    *,
    target_height: int,
    stride: int,
    max_width: Optional[int] = None,
    offset: Tuple[float, float] = (0.0, 0.0),
) -> Geometry:
    """The geometry of an image of `height` × `width` source pixels scaled to `target_height`.

    Args:
        max_width: cap on the scaled width in pixels; a wider image is scaled down until it fits.
        offset: the net's own error, see :class:`Geometry`.

    Raises:
        ImageTooLarge: the input would have more than MAX_INPUT_PIXELS.
    """
    scale = target_height / height
    if max_width is not None:
        scale = min(scale, max_width / width)
    geometry = Geometry(source_height=height, source_width=width, scale=scale, stride=stride, offset=offset)
    if geometry.net_height * geometry.net_width > MAX_INPUT_PIXELS:
        raise ImageTooLarge(
            f"An image of {width}x{height} pixels would be a net input of {geometry.net_width}x{geometry.net_height}, "
            f"more than {MAX_INPUT_PIXELS} pixels; set max_width or lower target_height."
        )
    return geometry
