"""Rewrites leave the outputs as they are; each test would see it if its rewrite did nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Sequence

import numpy as np
import pytest
import torch

from tests.support.nets import Op, checked
from worker.engine.manifest import read_manifest
from worker.engine.netdef import NetPair, check_pair, read_net, read_pair
from worker.engine.passes import (
    drop_identities,
    fold_batch_norms,
    fold_scalings,
    optimise,
    pad_channels,
    single_assignment,
)
from worker.engine.torch_graph import build_graph

RANDOM = np.random.default_rng(11)
X = RANDOM.standard_normal((2, 6, 10, 12)).astype(np.float32)


def _random(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def _run(net: NetPair, x: np.ndarray = X) -> Dict[str, np.ndarray]:
    with torch.inference_mode():
        outputs = build_graph(net)(torch.from_numpy(x))
    return {str(index): output.numpy() for index, output in enumerate(outputs)}


def _same(net: NetPair, rewritten: NetPair, x: np.ndarray = X) -> None:
    """Equal outputs, within 1e-5 of their range."""
    expected = _run(single_assignment(net), x)
    for blob, values in _run(rewritten, x).items():
        values = values[:, : expected[blob].shape[1]]  # what is padded has more
        assert np.abs(values - expected[blob]).max() <= 1e-5 * np.ptp(expected[blob])


def _kinds(net: NetPair) -> Counter:
    return Counter(operator.type for operator in net.operators)


BATCH_NORM = {"s": _random(8), "t": _random(8), "m": _random(8), "v": np.abs(_random(8)) + 0.1}
START = RANDOM.bit_generator.state


@pytest.fixture(autouse=True)
def _same_draws_in_any_order() -> None:
    """Each test draws what it drew alone."""
    RANDOM.bit_generator.state = START


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_goes_into_its_convolution(bias: bool, group: int) -> None:
    net = single_assignment(
        checked(
            [
                ("Conv", ["x", "w", "b"][: 2 + bias], ["c"], {"kernel": 3, "pad": 1, "group": group}),
                ("SpatialBN", ["c", "s", "t", "m", "v"], ["n"], {"is_test": 1, "epsilon": 1e-3}),
                ("Relu", ["n"], ["y"], {}),
            ],
            {"w": _random(8, 6 // group, 3, 3), "b": _random(8), **BATCH_NORM},
        )
    )
    folded = fold_batch_norms(net)
    assert _kinds(folded) == {"Conv": 1, "Relu": 1}
    assert len(folded.parameters) == 2  # what nobody reads any more is gone
    _same(net, folded)


@pytest.mark.parametrize(
    "readers",
    [
        [("Sum", ["c", "n"], ["y"], {})],  # another operator reads the convolution too
        [("Copy", ["n"], ["y"], {}), ("Sigmoid", ["c"], ["z"], {})],
    ],
)
def test_a_blob_with_other_readers_is_not_folded_away(readers: Sequence[Op]) -> None:
    net = checked(
        [
            ("Conv", ["x", "w"], ["c"], {"kernel": 1}),
            ("SpatialBN", ["c", "s", "t", "m", "v"], ["n"], {"is_test": 1}),
            *readers,
        ],
        {"w": _random(8, 6, 1, 1), **BATCH_NORM},
    )
    folded = fold_batch_norms(single_assignment(net))
    assert _kinds(folded)["SpatialBN"] == 1
    _same(net, folded)


def test_an_output_is_not_folded_away() -> None:
    net = checked(
        [
            ("Conv", ["x", "w"], ["c"], {"kernel": 1}),
            ("SpatialBN", ["c", "s", "t", "m", "v"], ["y"], {"is_test": 1}),
        ],
        {"w": _random(8, 6, 1, 1), **BATCH_NORM},
        outputs=("y", "c"),
    )
    _same(net, fold_batch_norms(single_assignment(net)))


@pytest.mark.parametrize(
    ("first", "second", "folds"),
    [
        ({}, {"kernel": 1}, True),
        ({}, {"kernel": 3, "pad": 1}, True),
        ({"bias": True}, {"kernel": 1}, True),
        ({"bias": True}, {"kernel": 3, "pad": 1}, False),  # the shift would be missing in the padding
        ({"stride": 2}, {"kernel": 1}, False),
        ({"pad": 1}, {"kernel": 1}, False),
        ({}, {"kernel": 1, "group": 2}, False),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_scaling_goes_into_the_convolution_after_it(
    first: Dict[str, Any], second: Dict[str, Any], folds: bool, bias: bool
) -> None:
    first = dict(first)
    shifted = first.pop("bias", False)
    group, kernel = second.get("group", 1), second["kernel"]
    parameters = {
        "d": _random(6, 1, 1, 1),
        "e": _random(6),
        "w": _random(4, 6 // group, kernel, kernel),
        "b": _random(4),
    }
    net = checked(
        [
            ("Conv", ["x", "d", "e"][: 2 + shifted], ["c"], {"kernel": 1, "group": 6, **first}),
            ("Conv", ["c", "w", "b"][: 2 + bias], ["y"], second),
        ],
        parameters,
    )
    folded = fold_scalings(single_assignment(net))
    assert len(folded.operators) == (1 if folds else 2)
    _same(net, folded)


def test_identities_go_and_outputs_stay() -> None:
    net = checked(
        [
            ("Copy", ["x"], ["a"], {}),
            ("Dropout", ["a"], ["b", "mask"], {"is_test": 1}),
            ("Relu", ["b"], ["r"], {}),
            ("Copy", ["r"], ["y"], {}),
        ]
    )
    dropped = drop_identities(single_assignment(net))
    assert [operator.type for operator in dropped.operators] == ["Relu", "Copy"]
    _same(net, dropped)


def test_a_copy_of_the_input_made_before_the_input_is_overwritten() -> None:
    net = checked(
        [
            ("Copy", ["x"], ["a"], {}),
            ("Relu", ["x"], ["x"], {}),
            ("Sum", ["a", "x"], ["y"], {}),
        ]
    )
    _same(net, optimise(net))
    np.testing.assert_allclose(_run(optimise(net))["0"], X + np.maximum(X, 0), rtol=1e-6)


def test_every_blob_gets_one_writer() -> None:
    """In place, by a shared name, and over a parameter."""
    net = checked(
        [
            ("Conv", ["x", "w"], ["c"], {"kernel": 1}),
            ("Relu", ["c"], ["c"], {}),
            ("Conv", ["c", "w2"], ["w"], {"kernel": 1}),
            ("Free", ["c"], ["c"], {}),
            ("Sigmoid", ["w"], ["c"], {}),
            ("Sum", ["c", "w"], ["y"], {}),
        ],
        {"w": _random(4, 6, 1, 1), "w2": _random(4, 4, 1, 1)},
        outputs=("y", "c", "w"),
    )
    renamed = single_assignment(net)
    written = [operator.outputs[0] for operator in renamed.operators]
    assert len(set(written)) == len(written) == 5
    assert not set(written) & {"x", "w2"}
    w, w2 = net.parameters["w"][:, :, 0, 0], net.parameters["w2"][:, :, 0, 0]
    hidden = np.einsum("om,nmhw->nohw", w2, np.maximum(np.einsum("oc,nchw->nohw", w, X), 0))
    sigmoid = 1 / (1 + np.exp(-hidden))
    for index, expected in enumerate((sigmoid + hidden, sigmoid, hidden)):
        np.testing.assert_allclose(_run(renamed)[str(index)], expected, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def thin(thin_net: Path) -> NetPair:
    manifest = read_manifest(thin_net)
    predict, init = (read_net(thin_net / name) for name in ("predict_net.pb", "init_net.pb"))
    return check_pair(predict, init, manifest.input.blob, (manifest.heatmaps.blob,))


def test_the_default_net_loses_24_convolutions(thin: NetPair) -> None:
    optimised = optimise(thin)
    assert _kinds(thin)["Conv"] - _kinds(optimised)["Conv"] == 24
    _same(thin, optimised, 255 * np.random.default_rng(0).random((1, 3, 48, 64), np.float32))


WIDE = {"w": _random(5, 6, 3, 3), "b": _random(5), "w2": _random(11, 6, 1, 1)}
FIRST: Sequence[Op] = (
    ("Conv", ["x", "w", "b"], ["a"], {"kernel": 3, "pad": 1}),
    ("Conv", ["x", "w2"], ["c"], {}),
)


def _channels(net: NetPair) -> Dict[str, Sequence[int]]:
    """Of each convolution: the channels that it makes and reads."""
    return {
        operator.outputs[0]: net.parameters[operator.inputs[1]].shape[:2]
        for operator in net.operators
        if operator.type == "Conv"
    }


def test_channels_are_padded_to_multiples_of_eight_for_the_convolution_that_reads_them() -> None:
    operators = [
        *FIRST,
        ("Sigmoid", ["a"], ["s"], {}),  # of zero, it makes a half
        ("MaxPool", ["c"], ["m"], {"kernel": 3, "pad": 1, "stride": 1}),
        ("Concat", ["s", "m"], ["j"], {}),
        ("Conv", ["j", "each"], ["e"], {"group": 16}),
        ("Conv", ["e", "w3", "b3"], ["y"], {"kernel": 3, "pad": 1}),
    ]
    parameters = {**WIDE, "each": _random(16, 1, 1, 1), "w3": _random(3, 16, 3, 3), "b3": _random(3)}
    net = checked(operators, parameters)
    padded = pad_channels(net)
    assert _channels(padded) == {"a": (8, 6), "c": (16, 6), "e": (24, 1), "y": (8, 24)}
    _same(net, padded)


@pytest.mark.parametrize(
    ("operators", "outputs", "channels"),
    [
        # The channels that model.json names would lie apart.
        ([("Concat", ["a", "c"], ["y"], {})], ["y"], {"a": 5, "c": 11}),
        # A slope for each channel.
        ([("PRelu", ["a", "slopes"], ["y"], {})], ["y", "c"], {"a": 5, "c": 16}),
        # The sum of all channels.
        ([("Softmax", ["a"], ["y"], {})], ["y", "c"], {"a": 5, "c": 16}),
        ([("Concat", ["a", "a"], ["y"], {"add_axis": 1})], ["y"], {"a": 5, "c": 16}),
        # Read by one that may and by one that may not.
        (
            [("Conv", ["a", "w3"], ["d"], {}), ("Sum", ["a", "a"], ["y"], {})],
            ["y", "d"],
            {"a": 5, "c": 16, "d": 8},
        ),
        # Two channels of each.
        ([("Conv", ["a", "each"], ["y"], {"kernel": 1, "group": 5})], ["y"], {"a": 5, "c": 16, "y": 10}),
    ],
)
def test_channels_stay_where_somebody_needs_to_know_them(
    operators: Sequence[Op], outputs: Sequence[str], channels: Dict[str, int]
) -> None:
    parameters = {**WIDE, "slopes": _random(5), "w3": _random(3, 5, 1, 1), "each": _random(10, 1, 1, 1)}
    net = checked([*FIRST, *operators], parameters, outputs=outputs)
    padded = pad_channels(net)
    assert {blob: made for blob, (made, _) in _channels(padded).items()} == channels
    _same(net, padded)


def _odd(net: NetPair) -> int:
    """How many convolutions read channels in a number that is no multiple of 8; but for the three colours."""
    grouped = {operator.outputs[0] for operator in net.operators if int(operator.args.get("group", 1)) > 1}
    return sum(read % 8 > 0 for blob, (_, read) in _channels(net).items() if blob not in grouped and read != 3)


@pytest.mark.parametrize(("name", "before", "after"), [("cmu_coco", 10, 0), ("body_25", 5, 0)])
def test_a_whole_net_with_padded_channels(
    random_net: Callable[[str], Path], name: str, before: int, after: int
) -> None:
    net = optimise(read_pair(read_manifest(random_net(name))))
    padded = pad_channels(net)
    assert (_odd(net), _odd(padded)) == (before, after)
    _same(net, padded, np.random.default_rng(0).random((1, 3, 40, 56), np.float32) - 0.5)


def test_the_default_net_with_padded_channels(thin: NetPair) -> None:
    optimised = optimise(thin)
    padded = pad_channels(optimised)
    assert (_odd(optimised), _odd(padded)) == (10, 0)
    _same(optimised, padded, 255 * np.random.default_rng(0).random((1, 3, 48, 64), np.float32))
