"""Small frozen TensorFlow graphs, node by node."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from models.proto import tensorflow_pb2

FLOAT, INT32 = 1, 3


class Graph:
    """A GraphDef being built; nodes are named as they are added."""

    def __init__(self) -> None:
        self.proto = tensorflow_pb2.GraphDef()
        self.node("Placeholder", "image", dtype=FLOAT)

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; attributes are bytes, booleans, floats, ints (types) or lists of ints."""
        node = self.proto.node.add(name=name, op=kind, input=inputs)
        for key, value in attributes.items():
            if isinstance(value, bytes):
                node.attr[key].s = value
            elif isinstance(value, bool):
                node.attr[key].b = value
            elif isinstance(value, float):
                node.attr[key].f = value
            elif isinstance(value, int):
                node.attr[key].type = value
            else:
                node.attr[key].list.i.extend(value)
        return name

    def constant(self, name: str, values: Any, packed: bool = True) -> str:
        """Add a constant, its values as raw bytes or as a list."""
        array = np.asarray(values)
        array = array.astype(np.int32 if array.dtype.kind == "i" else np.float32)
        kind = INT32 if array.dtype == np.int32 else FLOAT
        node = self.proto.node.add(name=name, op="Const")
        tensor = node.attr["value"].tensor
        tensor.dtype = kind
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        if packed:
            tensor.tensor_content = array.tobytes()
        else:
            (tensor.int_val if kind == INT32 else tensor.float_val).extend(array.ravel().tolist())
        return name

    def conv(
        self,
        name: str,
        source: str,
        weights: np.ndarray,
        stride: int = 1,
        padding: bytes = b"SAME",
        kind: str = "Conv2D",
        **more: Any,
    ) -> str:
        """Add a convolution with weights (height, width, in, out)."""
        blob = self.constant(f"{name}/weights", weights)
        return self.node(kind, name, source, blob, strides=[1, stride, stride, 1], padding=padding, **more)

    def bytes(self) -> bytes:
        """The frozen graph as it lies in a file."""
        return self.proto.SerializeToString(deterministic=True)


def pose_graph(seed: int = 0, extra: Sequence[str] = ()) -> bytes:
    """A graph with the default net's input and output: three convolutions of stride 2 make 57 maps.

    `extra` are types of nodes to put before the output, which the converter may not know.
    """
    generator = np.random.default_rng(seed)
    graph, source, channels = Graph(), "image", 3
    for number, width in enumerate((4, 8, 57)):
        weights = generator.standard_normal((3, 3, channels, width)) / (3 * channels)
        source, channels = graph.conv(f"conv{number}", source, weights, stride=2), width
    for number, kind in enumerate(extra):
        source = graph.node(kind, f"extra{number}", source)
    axis = graph.constant("axis", 3)
    graph.node("ConcatV2", "Openpose/concat_stage7", source, axis)
    return graph.bytes()
