"""Each operator of the table against an independent computation: by torch, and as ONNX by OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest

from tests.support import by_hand, nets
from worker.engine.netdef import OPERATORS

RANDOM = np.random.default_rng(7)
X = RANDOM.standard_normal((2, 6, 7, 9)).astype(np.float32)
#: As :func:`tests.support.nets.evaluate`.
Evaluate = Callable[..., Dict[str, np.ndarray]]
START = RANDOM.bit_generator.state


@pytest.fixture(params=["torch", "onnx"])
def evaluate(request: pytest.FixtureRequest) -> Evaluate:
    """Runs a net and returns its output blobs."""
    if request.param == "torch":
        return nets.evaluate
    pytest.importorskip("openvino")
    return nets.evaluate_onnx


@pytest.fixture(autouse=True)
def _same_draws_in_any_order() -> None:
    """Each test draws what it drew alone."""
    RANDOM.bit_generator.state = START


def _random(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def _close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


#: Arguments of a window → the same in words of by_hand.
WINDOWS = [
    ({"kernel": 3}, {}),
    ({"kernel": 3, "pad": 1, "order": "NCHW"}, {"pads": (1, 1, 1, 1)}),
    ({"kernel": 3, "stride": 2, "pad": 1}, {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
    ({"kernels": [3, 3], "strides": [2, 1], "pads": [0, 1, 2, 0]}, {"stride": (2, 1), "pads": (0, 1, 2, 0)}),
    # as SAME padding of stride 2 is written: right and bottom only
    (
        {"kernel_h": 3, "kernel_w": 3, "stride_h": 2, "stride_w": 2, "pad_t": 0, "pad_l": 0, "pad_b": 1, "pad_r": 1},
        {"stride": (2, 2), "pads": (0, 0, 1, 1)},
    ),
    ({"kernel": 3, "pad": 1, "pad_t": 2}, {"pads": (2, 1, 1, 1)}),  # one side given apart from the others
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2, 6])
@pytest.mark.parametrize(("args", "words"), WINDOWS)
def test_conv(evaluate: Evaluate, args: Dict[str, Any], words: Dict[str, Any], group: int, bias: bool) -> None:
    parameters = {"w": _random(12, 6 // group, 3, 3), "b": _random(12)}
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    found = evaluate([("Conv", inputs, ["y"], {**args, "group": group})], X, parameters)["y"]
    _close(found, by_hand.conv(X, parameters["w"], parameters["b"] if bias else None, group=group, **words))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"dilation": 2, "pad": 2}, {"dilation": (2, 2), "pads": (2, 2, 2, 2)}),
        ({"dilations": [1, 3], "pads": [0, 3, 0, 3]}, {"dilation": (1, 3), "pads": (0, 3, 0, 3)}),
        ({"dilation_h": 2, "dilation_w": 1, "stride": 2}, {"dilation": (2, 1), "stride": (2, 2)}),
    ],
)
def test_dilated_conv(evaluate: Evaluate, args: Dict[str, Any], words: Dict[str, Any]) -> None:
    weight = _random(4, 6, 3, 2)
    args = {"kernel_h": 3, "kernel_w": 2, **args}
    found = evaluate([("Conv", ["x", "w"], ["y"], args)], X, {"w": weight})["y"]
    _close(found, by_hand.conv(X, weight, **words))


def test_depthwise_conv_with_multiplier(evaluate: Evaluate) -> None:
    weight = _random(12, 1, 3, 3)
    found = evaluate([("Conv", ["x", "w"], ["y"], {"kernel": 3, "pad": 1, "group": 6})], X, {"w": weight})["y"]
    _close(found, by_hand.conv(X, weight, pads=(1, 1, 1, 1), group=6))


#: Pooling windows: kernel 3x3 unless said otherwise.
POOLS = [
    ({"kernel": 3}, {}),
    ({"kernel": 2, "stride": 2}, {"kernel": (2, 2), "stride": (2, 2)}),
    ({"kernel": 3, "stride": 2, "pad": 1}, {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
    ({"kernel": 3, "stride": 2, "pads": [0, 0, 1, 1]}, {"stride": (2, 2), "pads": (0, 0, 1, 1)}),
    ({"kernel": 3, "stride": 1, "pads": [1, 0, 1, 2]}, {"pads": (1, 0, 1, 2)}),
    ({"kernel": 3, "stride": 1, "pad": 2}, {"pads": (2, 2, 2, 2)}),  # a pad of more than half the kernel
    ({"kernel": 3, "stride": 2, "legacy_pad": 3}, {"stride": (2, 2), "ceil": True}),
    ({"kernel": 2, "stride": 2, "legacy_pad": 3}, {"kernel": (2, 2), "stride": (2, 2), "ceil": True}),
    ({"kernel": 3, "stride": 2, "pad": 1, "legacy_pad": 3}, {"stride": (2, 2), "pads": (1, 1, 1, 1), "ceil": True}),
    # Caffe's rounding takes the pads of top and left for both ends
    (
        {"kernel": 3, "stride": 2, "pads": [1, 1, 0, 0], "legacy_pad": 3},
        {"stride": (2, 2), "pads": (1, 1, 1, 1), "ceil": True},
    ),
]


@pytest.mark.parametrize(("args", "words"), POOLS)
def test_max_pool(evaluate: Evaluate, args: Dict[str, Any], words: Dict[str, Any]) -> None:
    found = evaluate([("MaxPool", ["x"], ["y"], args)], X)["y"]
    _close(found, by_hand.pool(X, lambda v: v.max(-1), **{"kernel": (3, 3), "stride": (1, 1), **words}))


@pytest.mark.parametrize(("args", "words"), POOLS)
def test_average_pool_counts_what_is_inside(evaluate: Evaluate, args: Dict[str, Any], words: Dict[str, Any]) -> None:
    found = evaluate([("AveragePool", ["x"], ["y"], args)], X)["y"]
    _close(found, by_hand.pool(X, lambda v: v.mean(-1), **{"kernel": (3, 3), "stride": (1, 1), **words}))


@pytest.mark.parametrize(("args", "words"), POOLS)
def test_average_pool_counts_padding_when_told(evaluate: Evaluate, args: Dict[str, Any], words: Dict[str, Any]) -> None:
    words = {"kernel": (3, 3), "stride": (1, 1), **words}
    area = words["kernel"][0] * words["kernel"][1]
    found = evaluate([("AveragePool", ["x"], ["y"], {**args, "count_include_pad": 1})], X)["y"]
    _close(found, by_hand.pool(X, lambda v: v.sum(-1) / area, **words))


def test_global_pooling(evaluate: Evaluate) -> None:
    _close(evaluate([("MaxPool", ["x"], ["y"], {"global_pooling": 1})], X)["y"], X.max((2, 3), keepdims=True))
    _close(evaluate([("AveragePool", ["x"], ["y"], {"global_pooling": 1})], X)["y"], X.mean((2, 3), keepdims=True))


def test_relu_and_sigmoid(evaluate: Evaluate) -> None:
    _close(evaluate([("Relu", ["x"], ["y"], {})], X)["y"], np.where(X > 0, X, 0))
    _close(evaluate([("Sigmoid", ["x"], ["y"], {})], X)["y"], 1 / (1 + np.exp(-X.astype(np.float64))))


def test_clip(evaluate: Evaluate) -> None:
    _close(evaluate([("Clip", ["x"], ["y"], {"min": -0.5, "max": 1.0})], X)["y"], np.clip(X, -0.5, 1))
    _close(evaluate([("Clip", ["x"], ["y"], {"min": 0.0})], X)["y"], np.maximum(X, 0))
    _close(evaluate([("Clip", ["x"], ["y"], {})], X)["y"], X)


def test_relu_in_place_leaves_the_callers_array_alone(evaluate: Evaluate) -> None:
    x = X.copy()
    found = evaluate([("Relu", ["x"], ["x"], {}), ("Copy", ["x"], ["y"], {})], x)["y"]
    _close(found, np.maximum(X, 0))
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("axis", [1, 2, 3, -1, 0])
def test_softmax_over_everything_from_the_axis_on(evaluate: Evaluate, axis: int) -> None:
    x = X.astype(np.float64).reshape(*X.shape[: axis % 4], -1)
    powers = np.exp(x - x.max(-1, keepdims=True))
    found = evaluate([("Softmax", ["x"], ["y"], {"axis": axis})], X)["y"]
    _close(found, (powers / powers.sum(-1, keepdims=True)).reshape(X.shape))


def test_softmax_begins_at_the_channels_unless_told(evaluate: Evaluate) -> None:
    assert evaluate([("Softmax", ["x"], ["y"], {})], X)["y"].sum((1, 2, 3)) == pytest.approx([1, 1], abs=1e-5)


def test_concat(evaluate: Evaluate) -> None:
    doubled = [("Sum", ["x", "x"], ["d"], {})]
    for args, expected in (
        ({}, np.concatenate([X, 2 * X], 1)),
        ({"axis": 1, "order": "NCHW"}, np.concatenate([X, 2 * X], 1)),
        ({"axis": 2}, np.concatenate([X, 2 * X], 2)),
        ({"axis": 1, "add_axis": 1}, np.stack([X, 2 * X], 1)),
    ):
        _close(evaluate([*doubled, ("Concat", ["x", "d"], ["y", "dims"], args)], X)["y"], expected)


def test_sum(evaluate: Evaluate) -> None:
    _close(evaluate([("Sum", ["x"], ["y"], {})], X)["y"], X)
    _close(evaluate([("Sum", ["x", "x", "x"], ["y"], {})], X)["y"], 3 * X)


def test_other_activations(evaluate: Evaluate) -> None:
    slopes = _random(6)
    _close(evaluate([("Tanh", ["x"], ["y"], {})], X)["y"], np.tanh(X.astype(np.float64)))
    _close(evaluate([("LeakyRelu", ["x"], ["y"], {"alpha": 0.2})], X)["y"], np.where(X > 0, X, 0.2 * X))
    _close(evaluate([("LeakyRelu", ["x"], ["y"], {})], X)["y"], np.where(X > 0, X, 0.01 * X))
    _close(evaluate([("Elu", ["x"], ["y"], {})], X)["y"], np.where(X > 0, X, np.expm1(X)))
    _close(evaluate([("Elu", ["x"], ["y"], {"alpha": 0.3})], X)["y"], np.where(X > 0, X, 0.3 * np.expm1(X)))
    each = np.where(X > 0, X, slopes[:, None, None] * X)
    _close(evaluate([("PRelu", ["x", "s"], ["y"], {"order": "NCHW"})], X, {"s": slopes})["y"], each)
    _close(evaluate([("PRelu", ["x", "s"], ["y"], {})], X, {"s": slopes[:1]})["y"], np.where(X > 0, X, slopes[0] * X))


@pytest.mark.parametrize(
    ("args", "shape", "seen_as"),
    [
        ({}, (2, 6, 7, 9), (2, 6, 7, 9)),
        ({}, (9,), (1, 1, 1, 9)),  # as in NumPy
        ({}, (6, 1, 1), (1, 6, 1, 1)),
        ({"broadcast": 1}, (7, 9), (1, 1, 7, 9)),  # the last dimensions
        ({"broadcast": 1, "axis": 1}, (6,), (1, 6, 1, 1)),  # a value for each channel
        ({"broadcast": 1, "axis": 1}, (6, 7), (1, 6, 7, 1)),
        ({"broadcast": 1}, (1,), (1, 1, 1, 1)),
    ],
)
def test_add_and_mul(evaluate: Evaluate, args: Dict[str, Any], shape: Any, seen_as: Any) -> None:
    other = _random(*shape)
    _close(evaluate([("Add", ["x", "o"], ["y"], args)], X, {"o": other})["y"], X + other.reshape(seen_as))
    _close(evaluate([("Mul", ["x", "o"], ["y"], args)], X, {"o": other})["y"], X * other.reshape(seen_as))


def test_affine_channel(evaluate: Evaluate) -> None:
    parameters = {"s": _random(6), "b": _random(6)}
    expected = X * parameters["s"][:, None, None] + parameters["b"][:, None, None]
    _close(evaluate([("AffineChannel", ["x", "s", "b"], ["y"], {"order": "NCHW"})], X, parameters)["y"], expected)


def test_resize_nearest(evaluate: Evaluate) -> None:
    found = evaluate([("ResizeNearest", ["x"], ["y"], {"height_scale": 2.0, "width_scale": 3.0})], X)["y"]
    np.testing.assert_array_equal(found, X.repeat(2, 2).repeat(3, 3))


@pytest.mark.parametrize("args", [{"is_test": 1}, {"is_test": 1, "epsilon": 0.1, "momentum": 0.9, "order": "NCHW"}])
def test_spatial_bn(evaluate: Evaluate, args: Dict[str, Any]) -> None:
    scale, bias, mean, var = _random(6), _random(6), _random(6), np.abs(_random(6))
    parameters = {"s": scale, "b": bias, "m": mean, "v": var}
    found = evaluate([("SpatialBN", ["x", "s", "b", "m", "v"], ["y"], args)], X, parameters)["y"]
    deviation = np.sqrt(var.astype(np.float64) + args.get("epsilon", 1e-5))
    scale, bias, mean, deviation = (v[:, None, None] for v in (scale, bias, mean, deviation))
    _close(found, (X - mean) / deviation * scale + bias)


def test_dropout_and_copy_change_nothing(evaluate: Evaluate) -> None:
    operators = [
        ("Dropout", ["x"], ["d", "mask"], {"is_test": 1, "ratio": 0.5}),
        ("Alias", ["d"], ["a"], {}),
        ("StopGradient", ["a"], ["g"], {}),
        ("Copy", ["g"], ["y"], {}),
        ("Free", ["d"], [], {}),
    ]
    np.testing.assert_array_equal(evaluate(operators, X)["y"], X)


def test_free_releases_what_is_not_needed_any_more(evaluate: Evaluate) -> None:
    operators = [("Relu", ["x"], ["a"], {}), ("Relu", ["a"], ["y"], {}), ("Free", ["a"], ["a"], {})]
    np.testing.assert_array_equal(evaluate(operators, X)["y"], np.maximum(X, 0))


@pytest.mark.parametrize(
    ("axis", "axis_w", "shape"),
    [(1, 1, (5, 378)), (2, 1, (5, 63)), (1, 2, (5, 2, 378)), (3, 1, (4, 9)), (-1, 1, (4, 9)), (1, 1, (5, 6, 7, 9))],
)
def test_fully_connected(evaluate: Evaluate, axis: int, axis_w: int, shape: Any) -> None:
    weight = _random(*shape)
    matrix = weight.reshape(int(np.prod(shape[:axis_w])), -1)
    bias = _random(len(matrix))
    args = {"axis": axis, "axis_w": axis_w}
    found = evaluate([("FC", ["x", "w", "b"], ["y"], args)], X, {"w": weight, "b": bias})["y"]
    flat = X.reshape(*X.shape[: axis % 4], -1)
    _close(found, flat.astype(np.float64) @ matrix.T + bias)


@pytest.mark.parametrize(
    ("shape", "expected"), [([0, -1], (2, 378)), ([2, 3, 2, 63], (2, 3, 2, 63)), ([-1, 0, 63], (2, 6, 63))]
)
@pytest.mark.parametrize("dtype", [None, np.int32, np.int64])
def test_reshape(evaluate: Evaluate, shape: Any, expected: Any, dtype: Any) -> None:
    """By argument, and by a second input in both integer types."""
    if dtype is None:
        found = evaluate([("Reshape", ["x"], ["y", "old"], {"shape": shape})], X)["y"]
    else:
        found = evaluate([("Reshape", ["x", "s"], ["y", "old"], {})], X, {"s": np.array(shape, dtype)})["y"]
    np.testing.assert_array_equal(found, X.reshape(expected))


def test_a_blob_may_be_written_again(evaluate: Evaluate) -> None:
    """As memonger writes nets: one buffer for several blobs."""
    operators = [
        ("Relu", ["x"], ["a"], {}),
        ("Sum", ["a", "x"], ["b"], {}),
        ("Sigmoid", ["b"], ["a"], {}),
        ("Sum", ["a", "b"], ["y"], {}),
    ]
    total = np.maximum(X, 0) + X
    _close(evaluate(operators, X)["y"], 1 / (1 + np.exp(-total)) + total)


def test_several_outputs_in_any_order(evaluate: Evaluate) -> None:
    operators = [("Relu", ["x"], ["a"], {}), ("Sigmoid", ["a"], ["b"], {})]
    found = evaluate(operators, X, outputs=("b", "a"))
    np.testing.assert_array_equal(found["a"], np.maximum(X, 0))
    _close(found["b"], 1 / (1 + np.exp(-found["a"])))


def test_every_operator_of_the_table_is_tested_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in OPERATORS if f'("{kind}"' not in source] == []
