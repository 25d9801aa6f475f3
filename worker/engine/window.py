"""The window of a convolution or pooling, read from an operator's arguments in each form that Caffe2 knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np

#: Rows and columns.
Pair = Tuple[int, int]
#: Top, left, bottom, right.
Pads = Tuple[int, int, int, int]


@dataclass(frozen=True)
class Window:
    """Kernel, stride and dilation in rows and columns; pads top, left, bottom, right.

    `ceil`: the number of windows is rounded up, as Caffe did (legacy_pad 3).
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: Pads
    ceil: bool = False

    def count(self, height: int, width: int) -> Pair:
        """How many windows a map of `height` by `width` has.

        Raises:
            ValueError: the map is smaller than the window.
        """
        return self._along(0, height), self._along(1, width)

    def _along(self, axis: int, size: int) -> int:
        head, tail, stride = self.pads[axis], self.pads[axis + 2], self.stride[axis]
        room = size + head + tail - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        if room < 0:
            raise ValueError(f"its window is larger than the padded map, which has {size + head + tail} pixels")
        if not self.ceil:
            return room // stride + 1
        count = -(-room // stride) + 1
        return count - 1 if (count - 1) * stride >= size + head else count


def conv_window(args: Dict[str, Any], kernel: Pair) -> Window:
    """The window of a Conv whose weights have `kernel` rows and columns.

    Raises:
        ValueError: an argument is out of range or contradicts the weights, in words that end a sentence about it.
    """
    given = _pair(args, "kernel", 0) if any(name.startswith("kernel") for name in args) else kernel
    if given != kernel:
        raise ValueError(f"has the kernel {given[0]}x{given[1]}, but weights of {kernel[0]}x{kernel[1]}")
    return Window(kernel, _pair(args, "stride", 1), _pair(args, "dilation", 1), _pads(args))


def pool_window(args: Dict[str, Any]) -> Window:
    """The window of a MaxPool or AveragePool that is not global.

    Raises:
        ValueError: an argument is out of range or not supported, in words that end a sentence about the operator.
    """
    legacy = int(args.get("legacy_pad", 0))
    if legacy not in (0, 3):
        raise ValueError("has a legacy_pad other than 0 (none) and 3 (as in Caffe), which is not supported")
    if _pair(args, "dilation", 1) != (1, 1):
        raise ValueError("has a dilation, which pooling does not support")
    kernel, pads = _pair(args, "kernel", 0), _pads(args)
    if legacy:  # Caffe knows one pad for both ends
        pads = (pads[0], pads[1], pads[0], pads[1])
    if max(pads[0], pads[2]) >= kernel[0] or max(pads[1], pads[3]) >= kernel[1]:
        raise ValueError(f"has the pads {list(pads)}, which are not smaller than its kernel")
    if legacy and (2 * pads[0] > kernel[0] or 2 * pads[1] > kernel[1]):
        raise ValueError("has a pad of more than half its kernel with a legacy_pad, which is not supported")
    return Window(kernel, _pair(args, "stride", 1), (1, 1), pads, bool(legacy))


def _pair(args: Dict[str, Any], name: str, default: int) -> Pair:
    """Rows and columns of a kernel, stride or dilation."""
    if f"{name}s" in args:
        values = _ints(args, f"{name}s", 2)
        found = values[0], values[1]
    else:
        both = int(args.get(name, default))
        found = int(args.get(f"{name}_h", both)), int(args.get(f"{name}_w", both))
    if min(found) < 1:
        raise ValueError(f"has the {name} {found[0]}x{found[1]}; it needs at least 1x1")
    return found


def _pads(args: Dict[str, Any]) -> Pads:
    if "pads" in args:
        found = _ints(args, "pads", 4)
    else:
        every = int(args.get("pad", 0))
        found = [int(args.get(f"pad_{side}", every)) for side in "tlbr"]
    if min(found) < 0:
        raise ValueError(f"has the pads {found}, of which none may be negative")
    return found[0], found[1], found[2], found[3]


def _ints(args: Dict[str, Any], name: str, count: int) -> List[int]:
    values = [int(value) for value in np.atleast_1d(args[name])]
    if len(values) != count:
        raise ValueError(f"has {len(values)} {name}; it needs {count}")
    return values
