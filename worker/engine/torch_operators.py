"""Each Caffe2 operator as a function on torch tensors (N, C, H, W), with the semantics of Caffe2's operator catalog."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F

from worker.engine.netdef import Operator

#: A function of the operator's input tensors, and constants baked in by keyword.
Call = Tuple[Callable[..., Any], Dict[str, Any]]


def call_for(operator: Operator) -> Call:
    """The function that computes `operator`, with its arguments.

    Raises:
        ValueError: an argument has a value that is not supported, in words that end a sentence about the operator.
    """
    return _BUILDERS[operator.type](operator.args)


def _pair(args: Dict[str, Any], name: str, default: int) -> Tuple[int, int]:
    if f"{name}s" in args:
        values = [int(value) for value in args[f"{name}s"]]
        if len(values) != 2:
            raise ValueError(f"has {len(values)} {name}s; it needs 2")
        return values[0], values[1]
    both = int(args.get(name, default))
    return int(args.get(f"{name}_h", both)), int(args.get(f"{name}_w", both))


def _pads(args: Dict[str, Any]) -> Tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    if "pads" in args:
        values = [int(value) for value in args["pads"]]
        if len(values) != 4:
            raise ValueError(f"has {len(values)} pads; it needs 4")
        return values[0], values[1], values[2], values[3]
    every = int(args.get("pad", 0))
    return tuple(int(args.get(f"pad_{side}", every)) for side in "tlbr")  # type: ignore[return-value]


def _padded(x: torch.Tensor, pads: Tuple[int, int, int, int], value: float) -> torch.Tensor:
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value)


def _split_pads(pads: Tuple[int, int, int, int]) -> Tuple[Tuple[int, int], Tuple[int, int, int, int]]:
    """What the kernel pads itself, and what must be added beforehand."""
    top, left, bottom, right = pads
    return ((top, left), (0, 0, 0, 0)) if (top, left) == (bottom, right) else ((0, 0), pads)


def conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any = None,
    *,
    stride: Tuple[int, int],
    padding: Tuple[int, int],
    extra: Tuple[int, int, int, int],
    dilation: Tuple[int, int],
    groups: int,
) -> torch.Tensor:
    """Convolution; `extra` is the padding that is not the same on both sides."""
    if any(extra):
        x = _padded(x, extra, 0.0)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _conv(args: Dict[str, Any]) -> Call:
    padding, extra = _split_pads(_pads(args))
    return conv, {
        "stride": _pair(args, "stride", 1),
        "padding": padding,
        "extra": extra,
        "dilation": _pair(args, "dilation", 1),
        "groups": int(args.get("group", 1)),
    }


def max_pool(x: torch.Tensor, *, kernel: Any, stride: Any, pads: Any, ceil: bool) -> torch.Tensor:
    """Maximum over each window; outside the image counts as minus infinity."""
    padding, extra = _split_pads(pads)
    if any(extra):
        x = _padded(x, extra, -float("inf"))
    return F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)


def average_pool(
    x: torch.Tensor, *, kernel: Any, stride: Any, pads: Any, ceil: bool, count_padding: bool
) -> torch.Tensor:
    """Mean over each window; outside the image counts only with `count_padding`."""
    padding, extra = _split_pads(pads)
    if not any(extra):
        return F.avg_pool2d(x, kernel, stride, padding, ceil, count_padding)
    sums = F.avg_pool2d(_padded(x, extra, 0.0), kernel, stride, 0, ceil, divisor_override=1)
    if count_padding:
        return sums / (kernel[0] * kernel[1])
    ones = torch.ones((1, 1, x.shape[2], x.shape[3]), dtype=x.dtype, device=x.device)
    return sums / F.avg_pool2d(_padded(ones, extra, 0.0), kernel, stride, 0, ceil, divisor_override=1)


def _pool_window(args: Dict[str, Any]) -> Dict[str, Any]:
    if int(args.get("legacy_pad", 0)) not in (0, 3):
        raise ValueError("has a legacy_pad other than 0 (none) and 3 (as in Caffe), which is not supported")
    if _pair(args, "dilation", 1) != (1, 1):
        raise ValueError("has a dilation, which pooling does not support")
    kernel = _pair(args, "kernel", 0)
    if min(kernel) < 1:
        raise ValueError("has no kernel size")
    return {
        "kernel": kernel,
        "stride": _pair(args, "stride", 1),
        "pads": _pads(args),
        "ceil": int(args.get("legacy_pad", 0)) == 3,
    }


def _max_pool(args: Dict[str, Any]) -> Call:
    if args.get("global_pooling"):
        return torch.amax, {"dim": (2, 3), "keepdim": True}
    return max_pool, _pool_window(args)


def _average_pool(args: Dict[str, Any]) -> Call:
    if args.get("global_pooling"):
        return torch.mean, {"dim": (2, 3), "keepdim": True}
    return average_pool, {**_pool_window(args), "count_padding": bool(args.get("count_include_pad", 0))}


def concat(*tensors: torch.Tensor, axis: int, add: bool) -> torch.Tensor:
    """Joined along `axis`; `add`: along a new one."""
    return torch.stack(tensors, axis) if add else torch.cat(tensors, axis)


def sum_of(first: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    """The elementwise sum."""
    for other in rest:
        first = first + other
    return first


def fully_connected(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, axis: int, axis_w: int
) -> torch.Tensor:
    """``x Wᵀ + b`` over everything from `axis` on."""
    return F.linear(x.flatten(axis), weight.flatten(axis_w), bias)


def spatial_bn(
    x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, *, epsilon: float
) -> torch.Tensor:
    """Batch normalisation with stored statistics."""
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)


def _spatial_bn(args: Dict[str, Any]) -> Call:
    _require_test(args)
    return spatial_bn, {"epsilon": float(args.get("epsilon", 1e-5))}


def softmax(x: torch.Tensor, *, axis: int) -> torch.Tensor:
    """Softmax over everything from `axis` on together, as Caffe2 coerces its input to two dimensions."""
    return F.softmax(x.flatten(axis), -1).reshape(x.shape)


def reshape(x: torch.Tensor, shape: Any = None, *, sizes: Sequence[int] = ()) -> torch.Tensor:
    """0 keeps the size of that dimension, -1 is inferred."""
    wanted: List[int] = [int(size) for size in (sizes if shape is None else shape)]
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(wanted)])


def same(x: torch.Tensor) -> torch.Tensor:
    """The tensor itself: operators at inference never write into their input."""
    return x


def _dropout(args: Dict[str, Any]) -> Call:
    _require_test(args)
    return same, {}


def _require_test(args: Dict[str, Any]) -> None:
    if not args.get("is_test"):
        raise ValueError("is made for training (is_test is not 1); export the net for inference")


_BUILDERS: Dict[str, Callable[[Dict[str, Any]], Call]] = {
    "AveragePool": _average_pool,
    "Concat": lambda args: (concat, {"axis": int(args.get("axis", 1)), "add": bool(args.get("add_axis", 0))}),
    "Conv": _conv,
    "Copy": lambda args: (same, {}),
    "Dropout": _dropout,
    "FC": lambda args: (
        fully_connected,
        {"axis": int(args.get("axis", 1)), "axis_w": int(args.get("axis_w", 1))},
    ),
    "MaxPool": _max_pool,
    "Relu": lambda args: (F.relu, {}),
    "Reshape": lambda args: (reshape, {"sizes": tuple(int(v) for v in np.atleast_1d(args.get("shape", ())))}),
    "Sigmoid": lambda args: (torch.sigmoid, {}),
    "Softmax": lambda args: (softmax, {"axis": int(args.get("axis", 1))}),
    "SpatialBN": _spatial_bn,
    "Sum": lambda args: (sum_of, {}),
}
