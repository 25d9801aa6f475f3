"""Caffe2's operators written out window by window in NumPy, after the formulas of its operator catalogue."""

from __future__ import annotations

from typing import Callable, Optional, Tuple

import numpy as np

Pair = Tuple[int, int]
Pads = Tuple[int, int, int, int]


def conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: Optional[np.ndarray] = None,
    *,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    group: int = 1,
) -> np.ndarray:
    """x (N, C, H, W), weight (M, C/group, kh, kw), pads top, left, bottom, right."""
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    count, per_group, kh, kw = weight.shape
    rows = (padded.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (padded.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((x.shape[0], count, rows, columns))
    for m in range(count):
        first = m // (count // group) * per_group
        for i in range(rows):
            for j in range(columns):
                window = padded[
                    :,
                    first : first + per_group,
                    i * stride[0] : i * stride[0] + dilation[0] * (kh - 1) + 1 : dilation[0],
                    j * stride[1] : j * stride[1] + dilation[1] * (kw - 1) + 1 : dilation[1],
                ]
                out[:, m, i, j] = (window * weight[m]).sum((1, 2, 3))
    return out if bias is None else out + bias[:, None, None]


def pool(
    x: np.ndarray,
    reduce: Callable[[np.ndarray], np.ndarray],
    *,
    kernel: Pair,
    stride: Pair,
    pads: Pads = (0, 0, 0, 0),
    ceil: bool = False,
) -> np.ndarray:
    """Each window of x, without what lies outside the image, through `reduce` (N, C, n) -> (N, C).

    `ceil`: as in Caffe: the number of windows is rounded up, the top and left pads hold for both ends, and a window
    that would begin beyond the image and its pad is dropped.
    """
    top, left, bottom, right = pads
    rows = _windows(x.shape[2], kernel[0], stride[0], top, bottom, ceil)
    columns = _windows(x.shape[3], kernel[1], stride[1], left, right, ceil)
    out = np.zeros((*x.shape[:2], rows, columns))
    for i in range(rows):
        for j in range(columns):
            y, z = i * stride[0] - top, j * stride[1] - left
            window = x[:, :, max(y, 0) : y + kernel[0], max(z, 0) : z + kernel[1]]
            out[:, :, i, j] = reduce(window.reshape(*x.shape[:2], -1))
    return out


def _windows(size: int, kernel: int, stride: int, head: int, tail: int, ceil: bool) -> int:
    if not ceil:
        return (size + head + tail - kernel) // stride + 1
    count = -(-(size + 2 * head - kernel) // stride) + 1
    return count - 1 if head and (count - 1) * stride >= size + head else count
