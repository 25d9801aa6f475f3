"""Inputs of nearby widths on one canvas, so that they can share a pass of the net."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np


class Canvas:
    """What a pass is given instead of inputs that are not equally wide: each is padded on its right.

    The net computes more pixels than it must, but images of many sizes, such as photographs, make few widths.

    Args:
        step: widths are rounded up to multiples of it, in pixels; 1: inputs stay as they are.
    """

    def __init__(self, step: int) -> None:
        self._step = step

    def width(self, width: int, stride: int) -> int:
        """The width, in pixels, that an input of `width` gets for a net of `stride`."""
        step = math.lcm(self._step, stride)
        return width if self._step == 1 else -(-width // step) * step

    def join(self, inputs: Sequence[np.ndarray], width: int, pad_value: int) -> Sequence[np.ndarray]:
        """The inputs of one pass, all of `width`.

        Args:
            inputs: uint8 (n, H, W, 3) of one height, at most `width` wide.
            pad_value: what the padding is filled with, 0..255, as the input's own.

        Returns:
            the inputs themselves if they are that wide already, else one array that holds them all.
        """
        if all(piece.shape[2] == width for piece in inputs):
            return inputs
        joined = np.empty((sum(map(len, inputs)), inputs[0].shape[1], width, 3), np.uint8)
        first = 0
        for piece in inputs:
            place = joined[first : first + len(piece)]
            place[:, :, : piece.shape[2]] = piece
            place[:, :, piece.shape[2] :] = pad_value
            first += len(piece)
        return [joined]
