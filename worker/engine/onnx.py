"""A checked net as an ONNX model, which other runtimes read: OpenVINO here, and others by ``python -m models.export``.

The schema stands beside netdef.proto: the package `onnx` would bring 33 MB to every worker. What runtimes read in
different ways is avoided, such as `ceil_mode` and a Softmax over several axes.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from worker.engine.netdef import NetPair, Operator
from worker.engine.proto import onnx_pb2
from worker.engine.shapes import resize_factors, with_shape
from worker.engine.window import Window, conv_window, pool_window

#: Version of ONNX's operators, and of its format.
_OPSET, _IR = 11, 6

Args = Dict[str, Any]


def to_onnx(net: NetPair) -> onnx_pb2.ModelProto:
    """The model that computes what `net` does, for every batch, height and width.

    Args:
        net: each of its blobs is written once (:func:`worker.engine.passes.single_assignment`).

    Returns:
        A model of one input, float32 (n, 3, h, w), called as the input blob, and of the net's output blobs in order.

    Raises:
        ModelError: an argument has a value that is not supported; the message names the operator and its blob.
    """
    model = onnx_pb2.ModelProto(ir_version=_IR, producer_name="pose-worker")
    model.opset_import.add(domain="", version=_OPSET)
    model.graph.name = net.name
    writer = _Writer(net, model.graph)
    for operator in net.operators:
        if operator.type == "Free":
            continue
        try:
            writer.translate(operator)
        except (ValueError, TypeError) as exc:
            raise operator.fault(net.name, f" that {exc}") from exc
    writer.end()
    return model


class _Writer:
    """Writes the operators of `net` as nodes of `graph`."""

    def __init__(self, net: NetPair, graph: onnx_pb2.GraphProto) -> None:
        self.parameters = net.parameters
        #: How many dimensions each blob has.
        self.ranks = {net.input_blob: 4, **{blob: values.ndim for blob, values in net.parameters.items()}}
        self._net, self._graph, self._fresh = net, graph, 0

    def translate(self, operator: Operator) -> None:
        """Add the nodes of one operator."""
        blob, first = operator.outputs[0], operator.inputs[0]
        self.ranks[blob] = self.ranks[first]
        _NODES[operator.type](self, with_shape(operator, self._net), operator.inputs, blob)

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output, which is a new one if none is given."""
        output = output or self._name()
        node = self._graph.node.add(op_type=kind, name=output, input=inputs, output=[output])
        for name, value in attributes.items():
            attribute = node.attribute.add(name=name)
            if isinstance(value, (int, float, bytes)):
                field, attribute.type = {int: ("i", 2), float: ("f", 1), bytes: ("s", 3)}[type(value)]
                setattr(attribute, field, value)
            else:
                attribute.type = attribute.INTS
                attribute.ints.extend(value)
        return output

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add a tensor, and return its name."""
        return self._tensor(self._name(), np.asarray(values, dtype))

    def widened(self, blob: str, count: int) -> str:
        """`blob` with `count` dimensions of one more at its end."""
        rank = self.ranks[blob]
        return self.node("Unsqueeze", [blob], axes=range(rank, rank + count)) if count > 0 else blob

    def channels(self, blob: str, like: str) -> str:
        """The vector `blob` such that it has a value for each channel of `like`."""
        return self.widened(blob, self.ranks[like] - 2)

    def flat(self, blob: str, axis: int) -> str:
        """`blob` with everything from `axis` on in one dimension."""
        return self.node("Reshape", [blob, self.constant([0] * axis + [-1], np.int64)])

    def end(self) -> None:
        """Declare the input and the outputs, and add the parameters that are read."""
        read = {name for node in self._graph.node for name in node.input} | set(self._net.output_blobs)
        for blob, values in self.parameters.items():
            if blob in read:
                self._tensor(blob, values.astype(np.float32, copy=False))
        data = self._declare(self._graph.input, self._net.input_blob)
        for dimension, name in zip(data, "nchw"):
            dimension.dim_param = name
        data[1].dim_value = 3
        for blob in self._net.output_blobs:
            self._declare(self._graph.output, blob)

    def _declare(self, values: Any, blob: str) -> List[Any]:
        kind = values.add(name=blob).type.tensor_type
        kind.elem_type = onnx_pb2.TensorProto.FLOAT
        return [kind.shape.dim.add() for _ in range(self.ranks[blob])]

    def _tensor(self, name: str, values: np.ndarray) -> str:
        kinds = onnx_pb2.TensorProto.DataType
        kind = kinds.FLOAT if values.dtype == np.float32 else kinds.INT64
        self._graph.initializer.add(name=name, dims=values.shape, data_type=kind, raw_data=values.tobytes())
        return name

    def _name(self) -> str:
        self._fresh += 1
        return f"#{self._fresh}"


#: Adds the nodes of an operator with these arguments and inputs, whose output has this name.
Nodes = Callable[[_Writer, Args, Sequence[str], str], Any]


def _alike(kind: str) -> Nodes:
    return lambda to, args, inputs, blob: to.node(kind, inputs, blob)


def _conv(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    if inputs[1] not in to.parameters:
        raise ValueError(f"needs blob {inputs[1]!r} to be a parameter")
    rows, columns = to.parameters[inputs[1]].shape[2:]
    window = conv_window(args, (rows, columns))
    group = int(args.get("group", 1))
    to.node("Conv", inputs, blob, **_window(window), dilations=window.dilation, group=group)


def _window(window: Window) -> Dict[str, Sequence[int]]:
    """Kernel, strides and pads; rounding up is a pad at the end, since runtimes do not agree on ONNX's `ceil_mode`."""
    pads = list(window.pads)
    if window.ceil:  # one window more, unless it began in the padding
        for axis in (0, 1):
            pads[axis + 2] = min(pads[axis + 2] + window.stride[axis] - 1, window.kernel[axis] - 1)
    return {"kernel_shape": window.kernel, "strides": window.stride, "pads": pads}


def _max_pool(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    if args.get("global_pooling"):
        to.node("GlobalMaxPool", inputs, blob)
    else:
        to.node("MaxPool", inputs, blob, **_window(pool_window(args)))


def _average_pool(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    if args.get("global_pooling"):
        to.node("GlobalAveragePool", inputs, blob)
    else:
        counted = int(bool(args.get("count_include_pad", 0)))
        to.node("AveragePool", inputs, blob, **_window(pool_window(args)), count_include_pad=counted)


def _concat(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    axis = int(args.get("axis", 1))
    if args.get("add_axis", 0):
        inputs = [to.node("Unsqueeze", [name], axes=[axis]) for name in inputs]
        to.ranks[blob] += 1
    to.node("Concat", inputs, blob, axis=axis)


def _clip(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    bounds = [to.constant(args.get(name, default)) for name, default in (("min", -np.inf), ("max", np.inf))]
    to.node("Clip", [*inputs, *bounds], blob)


def _elementwise(kind: str) -> Nodes:
    def nodes(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
        first, second = inputs
        axis, count = int(args.get("axis", -1)), to.ranks[first] - to.ranks[second]
        single = second in to.parameters and to.parameters[second].size == 1
        if not args.get("broadcast", 0):
            to.ranks[blob] = max(to.ranks[first], to.ranks[second])
        elif single:
            second = to.node("Reshape", [second, to.constant(np.zeros(0), np.int64)])
        elif axis != -1:
            second = to.widened(second, count - axis % to.ranks[first])
        to.node(kind, [first, second], blob)

    return nodes


def _affine_channel(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    x, scale, shift = inputs
    scaled = to.node("Mul", [x, to.channels(scale, x)])
    to.node("Add", [scaled, to.channels(shift, x)], blob)


def _spatial_bn(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    _require_test(args)
    to.node("BatchNormalization", inputs, blob, epsilon=float(args.get("epsilon", 1e-5)))


def _dropout(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    _require_test(args)
    to.node("Identity", inputs, blob)


def _require_test(args: Args) -> None:
    if not args.get("is_test"):
        raise ValueError("is made for training (is_test is not 1); export the net for inference")


def _prelu(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    x, slope = inputs
    to.node("PRelu", [x, to.channels(slope, x)], blob)


def _bent(kind: str, alpha: float) -> Nodes:
    """An activation with an `alpha`, whose default this is."""
    return lambda to, args, inputs, blob: to.node(kind, inputs, blob, alpha=float(args.get("alpha", alpha)))


def _softmax(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    axis = int(args.get("axis", 1)) % to.ranks[inputs[0]]
    rows = to.node("Softmax", [to.flat(inputs[0], axis)], axis=axis)
    to.node("Reshape", [rows, to.node("Shape", inputs)], blob)


def _fully_connected(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    x, weight, bias = inputs
    axis = int(args.get("axis", 1)) % to.ranks[x]
    matrix = to.node("Flatten", [weight], axis=int(args.get("axis_w", 1)))
    product = to.node("MatMul", [to.flat(x, axis), to.node("Transpose", [matrix], perm=[1, 0])])
    to.node("Add", [product, bias], blob)
    to.ranks[blob] = axis + 1


def _reshape(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    if "shape" not in args:
        raise ValueError("has no shape")
    sizes = np.atleast_1d(args["shape"])
    to.node("Reshape", [inputs[0], to.constant(sizes, np.int64)], blob)
    to.ranks[blob] = len(sizes)


def _resize_nearest(to: _Writer, args: Args, inputs: Sequence[str], blob: str) -> None:
    scales = to.constant([1, 1, *resize_factors(args)])
    how = {"mode": b"nearest", "nearest_mode": b"floor", "coordinate_transformation_mode": b"asymmetric"}
    to.node("Resize", [inputs[0], to.constant([]), scales], blob, **how)


_NODES: Dict[str, Nodes] = {
    "Add": _elementwise("Add"),
    "AffineChannel": _affine_channel,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Dropout": _dropout,
    "Elu": _bent("Elu", 1.0),
    "FC": _fully_connected,
    "LeakyRelu": _bent("LeakyRelu", 0.01),
    "MaxPool": _max_pool,
    "Mul": _elementwise("Mul"),
    "PRelu": _prelu,
    "Reshape": _reshape,
    "ResizeNearest": _resize_nearest,
    "Softmax": _softmax,
    "SpatialBN": _spatial_bn,
    **{kind: _alike(kind) for kind in ("Relu", "Sigmoid", "Sum", "Tanh")},
    **dict.fromkeys(("Alias", "Copy", "StopGradient"), _alike("Identity")),
}
