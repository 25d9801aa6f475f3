"""An image → one input for the net."""

from __future__ import annotations

from typing import Optional

import cv2
import numpy as np

from worker.pose.geometry import Geometry


def to_input(image: np.ndarray, geometry: Geometry, pad_value: int, out: Optional[np.ndarray] = None) -> np.ndarray:
    """Scale (bicubic) and pad right and bottom.

    Args:
        image: uint8 (H, W, 3), BGR: the source, or all of it at a fraction of its size.
        geometry: as planned for this image.
        pad_value: what the padding is filled with, 0..255.
        out: where to write the result; a new array if not given.

    Returns:
        uint8 (padded_height, padded_width, 3), BGR.
    """
    if out is None:
        out = np.empty((geometry.padded_height, geometry.padded_width, 3), np.uint8)
    scaled = out[: geometry.net_height, : geometry.net_width]
    out[geometry.net_height :] = pad_value
    out[:, geometry.net_width :] = pad_value
    size = (geometry.net_width, geometry.net_height)
    if 1 in size:
        made = cv2.resize(image, size, scaled, interpolation=cv2.INTER_CUBIC)
    else:  # given the size, OpenCV would sample at a slightly different scale along a side that is not whole
        scale = geometry.scale * geometry.source_height / len(image)
        made = cv2.resize(image, None, scaled, scale, scale, interpolation=cv2.INTER_CUBIC)
    if not np.shares_memory(made, scaled):  # OpenCV has found that it cannot write there
        scaled[...] = made
    return out
