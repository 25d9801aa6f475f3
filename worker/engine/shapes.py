"""The shapes of all blobs of a net for one input size, worked out without computing anything."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from worker.engine.netdef import NetPair, Operator
from worker.engine.window import conv_window, pool_window
from worker.errors import ModelError

Shape = Tuple[int, ...]
#: Operators that may admit one input size only, which nobody knows at load.
_SIZED = frozenset({"FC", "Reshape"})


class DoesNotFit(Exception):
    """An operator, its inputs' shapes, and why it cannot be computed from them."""


def operator_shapes(net: NetPair, input_shape: Shape) -> List[Shape]:
    """The shape that each operator's first output has, in order; () for a Free.

    Args:
        input_shape: of the input blob, (N, C, H, W).

    Raises:
        DoesNotFit: an operator cannot be computed from what it is given.
    """
    blobs: Dict[str, Shape] = {name: values.shape for name, values in net.parameters.items()}
    integers = {name for name, values in net.parameters.items() if values.dtype.kind != "f"}
    blobs[net.input_blob] = input_shape
    found: List[Shape] = []
    for operator in net.operators:
        if operator.type == "Free":
            found.append(())
            continue
        shapes = [blobs[name] for name in operator.inputs]
        try:
            _check_floats(operator, integers)
            made = _SHAPES[operator.type](with_shape(operator, net), shapes)
        except (ValueError, IndexError) as exc:
            raise DoesNotFit(operator, shapes, str(exc)) from exc
        blobs[operator.outputs[0]] = made
        integers.discard(operator.outputs[0])
        found.append(made)
    return found


def check_shapes(net: NetPair, height: int, width: int) -> Dict[str, Shape]:
    """Check that a net's operators fit together.

    Returns:
        The shapes of the output blobs for one input image of `height` by `width`; empty if the net has an operator
        that admits only another input size.

    Raises:
        ModelError: parameters and blobs do not fit together; the message names the operator, its blob and the shapes.
    """
    try:
        found = operator_shapes(net, (1, 3, height, width))
    except DoesNotFit as exc:
        operator, shapes, reason = exc.args
        if operator.type in _SIZED and not _fails_alike(net, exc, (1, 3, 2 * height, 2 * width)):
            return {}
        listed = ", ".join(f"{name} {shape}" for name, shape in zip(operator.inputs, shapes))
        if reason.startswith("has "):  # said of the operator itself
            raise operator.fault(net.name, f" that {reason}") from exc
        raise operator.fault(net.name, f" from {listed} that do not fit: {reason}") from exc
    made = {operator.outputs[0]: shape for operator, shape in zip(net.operators, found) if operator.outputs}
    made = {**{name: values.shape for name, values in net.parameters.items()}, **made}
    try:
        return {blob: made[blob] for blob in net.output_blobs if blob != net.input_blob}
    except KeyError as exc:
        raise ModelError(f"The net {net.name!r} has the output {exc}, which inference does not make.") from exc


def _fails_alike(net: NetPair, failure: DoesNotFit, input_shape: Shape) -> bool:
    """Whether an image of another size brings the same shapes to the operator that did not fit."""
    try:
        operator_shapes(net, input_shape)
    except DoesNotFit as exc:
        return exc.args[0] is failure.args[0] and exc.args[1] == failure.args[1]
    return False


def _check_floats(operator: Operator, integers: set) -> None:
    inputs = operator.inputs[:1] if operator.type == "Reshape" else operator.inputs
    if any(name in integers for name in inputs):
        raise ValueError("all must be of floating-point numbers")


def with_shape(operator: Operator, net: NetPair) -> Dict[str, Any]:
    """The operator's arguments; a Reshape's shape blob is one of them."""
    if operator.type != "Reshape" or len(operator.inputs) == 1:
        return operator.args
    blob = operator.inputs[1]
    if blob not in net.parameters:
        raise ValueError(f"has its shape from blob {blob!r}, which is not a parameter")
    return {**operator.args, "shape": net.parameters[blob]}


def _conv(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    x, weight = _of_rank(shapes[0], 4), _of_rank(shapes[1], 4)
    group = int(args.get("group", 1))
    if group < 1 or x[1] != weight[1] * group or weight[0] % group:
        raise ValueError(f"weights of {weight[1]} channels in {group} groups do not take {x[1]}")
    _vectors(shapes[2:], weight[0])
    return (x[0], weight[0], *conv_window(args, (weight[2], weight[3])).count(x[2], x[3]))


def _pool(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    x = _of_rank(shapes[0], 4)
    if args.get("global_pooling"):
        return (*x[:2], 1, 1)
    return (*x[:2], *pool_window(args).count(x[2], x[3]))


def _concat(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    first = shapes[0]
    add = bool(args.get("add_axis", 0))
    axis = _axis(int(args.get("axis", 1)), len(first) + add)
    if add:
        if any(shape != first for shape in shapes):
            raise ValueError("they must have one shape")
        return (*first[:axis], len(shapes), *first[axis:])
    others = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
    if any(len(shape) != len(first) for shape in shapes) or any(other != others[0] for other in others):
        raise ValueError(f"they must be equal but for axis {axis}")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _fully_connected(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    x, weight, bias = shapes
    axis = _axis(int(args.get("axis", 1)), len(x))
    split = _axis(int(args.get("axis_w", 1)), len(weight))
    outputs = math.prod(weight[:split])
    if math.prod(x[axis:]) != math.prod(weight[split:]):
        raise ValueError(f"{math.prod(x[axis:])} values meet weights for {math.prod(weight[split:])}")
    _vectors([bias], outputs)
    return (*x[:axis], outputs)


def _reshape(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    if "shape" not in args:
        raise ValueError("has no shape")
    x = shapes[0]
    sizes = [int(size) for size in np.atleast_1d(args["shape"])]
    wanted = [x[i] if size == 0 else size for i, size in enumerate(sizes)]
    if wanted.count(-1) == 1:
        rest = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = math.prod(x) // rest if rest else 0
    if min(wanted, default=1) < 0 or math.prod(wanted) != math.prod(x):
        raise ValueError(f"{math.prod(x)} values do not fill the shape {sizes}")
    return tuple(wanted)


def _sum(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("they must have one shape")
    return shapes[0]


def _softmax(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    _axis(int(args.get("axis", 1)), len(shapes[0]))
    return shapes[0]


def _elementwise(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    first, second = broadcast_shapes(args, shapes[0], shapes[1])
    return tuple(np.broadcast_shapes(first, second))


def broadcast_shapes(args: Dict[str, Any], first: Shape, second: Shape) -> Tuple[Shape, Shape]:
    """The shapes as which the inputs of an Add or Mul meet.

    With the argument `broadcast`, the second's dimensions are those of the first from `axis` on, by default the last
    ones; without it they meet as in NumPy.

    Raises:
        ValueError: they do not fit.
    """
    if not args.get("broadcast", 0) or math.prod(second) == 1:
        return first, (second if not args.get("broadcast", 0) else ())
    axis = int(args.get("axis", -1))
    start = len(first) - len(second) if axis == -1 else _axis(axis, len(first))
    if start < 0 or first[start : start + len(second)] != second:
        raise ValueError(f"{second} are no dimensions of {first} from axis {max(start, 0)} on")
    return first, second + (1,) * (len(first) - start - len(second))


def _affine(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    x = _of_rank(shapes[0], 4)
    _vectors(shapes[1:], x[1])
    return x


def _prelu(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    if shapes[1] != (1,):
        _vectors(shapes[1:], shapes[0][1])
    return shapes[0]


def _resize(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    x = _of_rank(shapes[0], 4)
    rows, columns = resize_factors(args)
    return (*x[:2], x[2] * rows, x[3] * columns)


def resize_factors(args: Dict[str, Any]) -> Tuple[int, int]:
    """How many rows and columns a ResizeNearest makes of one.

    Raises:
        ValueError: they are not whole, in words that end a sentence about the operator.
    """
    found = [float(args.get(f"{side}_scale", 1.0)) for side in ("height", "width")]
    if any(factor != int(factor) or factor < 1 for factor in found):
        raise ValueError(f"has the scales {found}; only whole ones from 1 on are supported")
    return int(found[0]), int(found[1])


def _unchanged(args: Dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    return shapes[0]


def _of_rank(shape: Shape, rank: int) -> Shape:
    if len(shape) != rank:
        raise ValueError(f"{shape} should have {rank} dimensions")
    return shape


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"there is no axis {axis} among {rank}")
    return axis % rank


def _vectors(shapes: Sequence[Shape], channels: int) -> None:
    if any(shape != (channels,) for shape in shapes):
        raise ValueError(f"there must be one value for each of {channels} channels")


_SHAPES: Dict[str, Callable[[Dict[str, Any], Sequence[Shape]], Shape]] = {
    "Add": _elementwise,
    "AffineChannel": _affine,
    "AveragePool": _pool,
    "Concat": _concat,
    "Conv": _conv,
    "FC": _fully_connected,
    "MaxPool": _pool,
    "Mul": _elementwise,
    "PRelu": _prelu,
    "Reshape": _reshape,
    "ResizeNearest": _resize,
    "Softmax": _softmax,
    "SpatialBN": _affine,
    "Sum": _sum,
    **dict.fromkeys(
        ("Alias", "Clip", "Copy", "Dropout", "Elu", "LeakyRelu", "Relu", "Sigmoid", "StopGradient", "Tanh"), _unchanged
    ),
}
