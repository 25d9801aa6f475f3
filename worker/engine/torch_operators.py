"""Each Caffe2 operator as a function on torch tensors (N, C, H, W), with the semantics of Caffe2's operator catalog."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F

from worker.engine.netdef import NetPair, Operator
from worker.engine.shapes import broadcast_shapes, resize_factors
from worker.engine.window import Pads, Pair, conv_window, pool_window

#: A function of the operator's input tensors, and constants baked in by keyword.
Call = Tuple[Callable[..., Any], Dict[str, Any]]


def call_for(operator: Operator, net: NetPair) -> Call:
    """The function that computes `operator` of `net`, with its arguments.

    Raises:
        ValueError: an argument has a value that is not supported, in words that end a sentence about the operator.
    """
    if operator.type == "Conv":
        rows, columns = _parameter(net, operator).shape[2:]
        return _conv(operator.args, (rows, columns))
    if operator.type == "Reshape" and len(operator.inputs) == 2:
        return _reshape({"shape": _parameter(net, operator)})
    return _BUILDERS[operator.type](operator.args)


def _parameter(net: NetPair, operator: Operator) -> np.ndarray:
    blob = operator.inputs[1]
    if blob not in net.parameters:
        raise ValueError(f"needs blob {blob!r} to be a parameter")
    return net.parameters[blob]


def padded(x: torch.Tensor, pads: Pads, value: float) -> torch.Tensor:
    """The image with `pads` of `value` around it."""
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value)


def _split_pads(pads: Pads) -> Tuple[Tuple[int, int], Pads]:
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
    extra: Pads,
    dilation: Tuple[int, int],
    groups: int,
    relu: bool = False,
) -> torch.Tensor:
    """Convolution, and Relu after it if wanted; `extra` is the padding that is not the same on both sides."""
    if any(extra):
        x = padded(x, extra, 0.0)
    made = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return F.relu_(made) if relu else made


def _conv(args: Dict[str, Any], kernel: Pair) -> Call:
    window = conv_window(args, kernel)
    padding, extra = _split_pads(window.pads)
    constants = {"stride": window.stride, "padding": padding, "extra": extra, "dilation": window.dilation}
    return conv, {**constants, "groups": int(args.get("group", 1))}


def max_pool(x: torch.Tensor, *, kernel: Any, stride: Any, padding: Any, extra: Pads, ceil: bool) -> torch.Tensor:
    """Maximum over each window; outside the image counts as minus infinity."""
    if any(extra):
        x = padded(x, extra, -float("inf"))
    return F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)


def average_pool(
    x: torch.Tensor, *, kernel: Any, stride: Any, padding: Any, extra: Pads, ceil: bool, count_padding: bool
) -> torch.Tensor:
    """Mean over each window; outside the image counts, as zero, only with `count_padding`."""
    if not any(extra) and not count_padding:
        return F.avg_pool2d(x, kernel, stride, padding, ceil, False)
    sums = F.avg_pool2d(padded(x, extra, 0.0), kernel, stride, padding, ceil, divisor_override=1)
    if count_padding:
        return sums / (kernel[0] * kernel[1])
    ones = torch.ones((1, 1, x.shape[2], x.shape[3]), dtype=x.dtype, device=x.device)
    return sums / F.avg_pool2d(padded(ones, extra, 0.0), kernel, stride, padding, ceil, divisor_override=1)


def _pool(args: Dict[str, Any]) -> Dict[str, Any]:
    window = pool_window(args)
    padding, extra = _split_pads(window.pads)
    if 2 * padding[0] > window.kernel[0] or 2 * padding[1] > window.kernel[1]:  # more than the kernels themselves pad
        padding, extra = (0, 0), window.pads
    constants = {"kernel": window.kernel, "stride": window.stride, "padding": padding, "extra": extra}
    return {**constants, "ceil": window.ceil}


def _max_pool(args: Dict[str, Any]) -> Call:
    if args.get("global_pooling"):
        return torch.amax, {"dim": (2, 3), "keepdim": True}
    return max_pool, _pool(args)


def _average_pool(args: Dict[str, Any]) -> Call:
    if args.get("global_pooling"):
        return torch.mean, {"dim": (2, 3), "keepdim": True}
    return average_pool, {**_pool(args), "count_padding": bool(args.get("count_include_pad", 0))}


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
    """``x Wᵀ + b`` over everything from `axis` on; the weights' dimensions before `axis_w` are the outputs."""
    return F.linear(x.flatten(axis), weight.reshape(math.prod(weight.shape[:axis_w]), -1), bias)


def spatial_bn(
    x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, *, epsilon: float
) -> torch.Tensor:
    """Batch normalisation with stored statistics."""
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)


def _spatial_bn(args: Dict[str, Any]) -> Call:
    _require_test(args)
    return spatial_bn, {"epsilon": float(args.get("epsilon", 1e-5))}


def affine_channel(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Each channel scaled and shifted."""
    return torch.addcmul(bias.view(1, -1, 1, 1), x, scale.view(1, -1, 1, 1))


def add(x: torch.Tensor, other: torch.Tensor, *, broadcast: int, axis: int) -> torch.Tensor:
    """The elementwise sum, broadcast as :func:`worker.engine.shapes.broadcast_shapes` says."""
    return x + other.reshape(broadcast_shapes({"broadcast": broadcast, "axis": axis}, x.shape, other.shape)[1])


def multiply(x: torch.Tensor, other: torch.Tensor, *, broadcast: int, axis: int) -> torch.Tensor:
    """The elementwise product, broadcast likewise."""
    return x * other.reshape(broadcast_shapes({"broadcast": broadcast, "axis": axis}, x.shape, other.shape)[1])


def _broadcast(args: Dict[str, Any]) -> Dict[str, Any]:
    return {"broadcast": int(args.get("broadcast", 0)), "axis": int(args.get("axis", -1))}


def resize_nearest(x: torch.Tensor, *, factors: Pair) -> torch.Tensor:
    """Each pixel as often as `factors` say, down and across."""
    return x.repeat_interleave(factors[0], 2).repeat_interleave(factors[1], 3)


def softmax(x: torch.Tensor, *, axis: int) -> torch.Tensor:
    """Softmax over everything from `axis` on together, as Caffe2 coerces its input to two dimensions."""
    return F.softmax(x.flatten(axis), -1).reshape(x.shape)


def reshape(x: torch.Tensor, *, sizes: Sequence[int]) -> torch.Tensor:
    """0 keeps the size of that dimension, -1 is inferred."""
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(sizes)])


def _reshape(args: Dict[str, Any]) -> Call:
    if "shape" not in args:
        raise ValueError("has no shape")
    return reshape, {"sizes": tuple(int(size) for size in np.atleast_1d(args["shape"]))}


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
    "Add": lambda args: (add, _broadcast(args)),
    "AffineChannel": lambda args: (affine_channel, {}),
    "AveragePool": _average_pool,
    "Clip": lambda args: (
        torch.clamp,
        {"min": float(args.get("min", -float("inf"))), "max": float(args.get("max", float("inf")))},
    ),
    "Concat": lambda args: (concat, {"axis": int(args.get("axis", 1)), "add": bool(args.get("add_axis", 0))}),
    "Dropout": _dropout,
    "Elu": lambda args: (F.elu, {"alpha": float(args.get("alpha", 1.0))}),
    "FC": lambda args: (
        fully_connected,
        {"axis": int(args.get("axis", 1)), "axis_w": int(args.get("axis_w", 1))},
    ),
    "LeakyRelu": lambda args: (F.leaky_relu, {"negative_slope": float(args.get("alpha", 0.01))}),
    "MaxPool": _max_pool,
    "Mul": lambda args: (multiply, _broadcast(args)),
    "PRelu": lambda args: (F.prelu, {}),
    "Relu": lambda args: (F.relu, {}),
    "Reshape": _reshape,
    "ResizeNearest": lambda args: (resize_nearest, {"factors": resize_factors(args)}),
    "Sigmoid": lambda args: (torch.sigmoid, {}),
    "Softmax": lambda args: (softmax, {"axis": int(args.get("axis", 1))}),
    "SpatialBN": _spatial_bn,
    "Sum": lambda args: (sum_of, {}),
    "Tanh": lambda args: (torch.tanh, {}),
    **dict.fromkeys(("Alias", "Copy", "StopGradient"), lambda args: (same, {})),
}
