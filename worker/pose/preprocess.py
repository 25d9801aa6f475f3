"""An image → one frame for the net."""

from __future__ import annotations

import cv2
import numpy as np

from worker.pose.geometry import Geometry


def to_frame(image: np.ndarray, geometry: Geometry, pad_value: int) -> np.ndarray:
    """Scale (bicubic) and pad right and bottom.

    Args:
        image: uint8 (H, W, 3), BGR.
        geometry: as planned for this image.
        pad_value: what the padding is filled with, 0..255.

    Returns:
        uint8 (padded_height, padded_width, 3), BGR.
    """
    size = (geometry.net_width, geometry.net_height)
    if 1 in size:
        scaled = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    else:  # given the size, OpenCV would sample at a slightly different scale along a side that is not whole
        scaled = cv2.resize(image, None, fx=geometry.scale, fy=geometry.scale, interpolation=cv2.INTER_CUBIC)
    bottom = geometry.padded_height - geometry.net_height
    right = geometry.padded_width - geometry.net_width
    return cv2.copyMakeBorder(scaled, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(pad_value,) * 3)
