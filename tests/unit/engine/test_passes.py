"""Rewrites leave the outputs as they are; each test would see it if its rewrite did nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Dict, Sequence

import numpy as np
import pytest
import torch

from tests.support.nets import Op, checked
from worker.engine.manifest import read_manifest
from worker.engine.netdef import NetPair, check_pair, read_net
from worker.engine.passes import drop_identities, fold_batch_norms, fold_scalings, optimise, single_assignment
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
