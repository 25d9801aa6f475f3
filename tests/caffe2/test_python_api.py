"""Nets made by Caffe2's own Python API load and run in the default engine, and compute what they do in Caffe2."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

import numpy as np
import pytest

from models.catalog import find_entry
from tests.support.cases import TOLERANCE
from worker.engine import load
from worker.engine.manifest import sha256_of

#: Caffe2 uses names that its NumPy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BATCH = np.random.default_rng(4).standard_normal((2, 3, 40, 56)).astype(np.float32)


def _changed(model: Any, **fields: Any) -> Any:
    """`model` with other values of these fields."""
    return model.model_copy(update=fields)


def _write(directory: Path, predict: Any, init: Any) -> Path:
    """The two NetDefs and a model.json whose outputs are blob ``maps``."""
    directory.mkdir()
    (directory / "predict_net.pb").write_bytes(predict.SerializeToString())
    (directory / "init_net.pb").write_bytes(init.SerializeToString())
    manifest = find_entry("mobilenet_thin").manifest(directory, "a test")
    manifest = _changed(
        manifest,
        name="by_api",
        predict_sha256=sha256_of(directory / "predict_net.pb"),
        sha256=sha256_of(directory / "init_net.pb"),
        input=_changed(manifest.input, blob="data"),
        heatmaps=_changed(manifest.heatmaps, blob="maps"),
        pafs=_changed(manifest.pafs, blob="maps"),
    )
    (directory / "model.json").write_text(manifest.to_json())
    return directory


def _same(directory: Path, batch: np.ndarray = BATCH) -> None:
    caffe2, ours = (load(directory, engine=engine).run(batch) for engine in ("caffe2", "torch"))
    for expected, found in zip(caffe2, ours):
        assert np.ptp(expected) > 1e-3
        assert np.abs(expected - found).max() <= TOLERANCE * np.ptp(expected)


def _filled(init: Any) -> Any:
    """`init` with what its random fills drew this time, as given values."""
    from caffe2.python import core, workspace

    workspace.ResetWorkspace()
    workspace.RunNetOnce(init)
    given = core.Net("given").Proto()
    for operator in init.op:
        (blob,) = operator.output
        values = workspace.FetchBlob(blob)
        given.op.extend(
            [core.CreateOperator("GivenTensorFill", [], [blob], shape=values.shape, values=values.ravel().tolist())]
        )
    return given


@pytest.mark.parametrize("order", ["as drawn", "as given"])
def test_a_model_of_cnn_model_helper(order: str, tmp_path: Path) -> None:
    from caffe2.python import cnn

    model = cnn.CNNModelHelper(order="NCHW", name="by_api", use_cudnn=True, cudnn_exhaustive_search=True)
    model.Conv("data", "c1", 3, 8, kernel=3, stride=2, pad=1)
    model.SpatialBN("c1", "n1", 8, epsilon=1e-3, is_test=True)
    model.Relu("n1", "n1")
    model.MaxPool("n1", "p1", kernel=2, stride=2)
    model.GroupConv("p1", "g1", 8, 16, kernel=3, pad=1, group=2)
    model.Relu("g1", "r1")
    model.Dropout("r1", "d1", ratio=0.3, is_test=True)
    model.AveragePool("d1", "p2", kernel=2, stride=2)
    model.Conv("p2", "left", 16, 20, kernel=1, weight_init=("GaussianFill", {"std": 0.1}), no_bias=True)
    model.Conv("p2", "right", 16, 37, kernel=1, bias_init=("ConstantFill", {"value": 0.25}))
    model.Concat(["left", "right"], "both")
    model.Sigmoid("both", "maps")
    predict, init = model.net.Proto(), model.param_init_net.Proto()
    if order == "as given":
        _same(_write(tmp_path / "net", predict, _filled(init)))
    else:  # each engine draws numbers of its own
        heatmaps, pafs = load(_write(tmp_path / "net", predict, init)).run(BATCH)
        assert (heatmaps.shape, pafs.shape) == ((2, 19, 5, 7), (2, 38, 5, 7))
        assert 0 < heatmaps.min() < heatmaps.max() < 1


Window = Dict[str, Any]


@pytest.mark.parametrize(
    ("window", "pool"),
    [
        ({"kernel": 3, "pad": 1, "stride": 2}, {"kernel": 2, "stride": 4}),
        (
            {"kernel_h": 3, "kernel_w": 5, "pad_t": 1, "pad_b": 1, "pad_l": 2, "pad_r": 2},
            {"kernels": [8, 8], "strides": [8, 8]},
        ),
        ({"kernels": [5, 3], "pads": [3, 0, 1, 2], "strides": [2, 2]}, {"kernel": 4, "stride_h": 4, "stride_w": 4}),
        ({"kernel": 3, "dilation": 2, "pad": 2, "stride": 1}, {"kernel": 3, "pads": [0, 0, 0, 0], "stride": 8}),
    ],
)
def test_operators_of_create_operator(window: Window, pool: Window, tmp_path: Path) -> None:
    from caffe2.python import core

    generator = np.random.default_rng(8)
    rows = window.get("kernel", window.get("kernel_h", 0)) or window["kernels"][0]
    columns = window.get("kernel", window.get("kernel_w", 0)) or window["kernels"][1]
    shapes: Dict[str, Tuple[int, ...]] = {"w1": (6, 3, rows, columns), "b1": (6,), "w2": (57, 12, 1, 1), "b2": (57,)}
    init, predict = core.Net("by_hand_init").Proto(), core.Net("by_hand").Proto()
    for blob, shape in shapes.items():
        values = generator.standard_normal(shape).ravel().tolist()
        init.op.extend([core.CreateOperator("GivenTensorFill", [], [blob], shape=shape, values=values)])
    made: Sequence[Any] = [
        core.CreateOperator("Conv", ["data", "w1", "b1"], ["c"], order="NCHW", **window),
        core.CreateOperator("MaxPool", ["c"], ["m"], **pool),
        core.CreateOperator("AveragePool", ["c"], ["a"], **pool),
        core.CreateOperator("Clip", ["a"], ["a"], min=-1.0, max=1.0),
        core.CreateOperator("Concat", ["m", "a"], ["j", "j_dims"], axis=1),
        core.CreateOperator("Conv", ["j", "w2", "b2"], ["k"], kernel=1),
        core.CreateOperator("Copy", ["k"], ["l"]),
        core.CreateOperator("Sum", ["k", "l"], ["k"]),
        core.CreateOperator("Softmax", ["k"], ["s"], axis=1),
        core.CreateOperator("Sum", ["s", "k"], ["maps"]),
    ]
    predict.op.extend(made)
    predict.external_input.extend(["data", *shapes])
    _same(_write(tmp_path / "net", predict, init))


@pytest.mark.parametrize("size", [(40, 56), (64, 24)])
def test_a_model_of_brew(size: Tuple[int, int], tmp_path: Path) -> None:
    """What other pose nets have between their convolutions."""
    from caffe2.python import brew, model_helper

    model = model_helper.ModelHelper(name="by_brew", arg_scope={"order": "NCHW"})
    brew.conv(model, "data", "c1", 3, 12, kernel=4, stride=4, weight_init=("MSRAFill", {}))
    model.param_init_net.UniformFill([], "slopes", shape=[12], min=-0.5, max=0.5)
    model.param_init_net.UniformFill([], "scales", shape=[12], min=0.5, max=2.0)
    model.net.PRelu(["c1", "slopes"], "p1")
    model.net.AffineChannel(["p1", "scales", "slopes"], "a1", order="NCHW")
    model.net.Add(["a1", "slopes"], "a2", broadcast=1, axis=1)
    model.net.Mul(["a2", "p1"], "m1")
    model.net.LeakyRelu("m1", "l1", alpha=0.1)
    brew.average_pool(model, "l1", "half", kernel=2, stride=2)
    model.net.ResizeNearest("half", "twice", width_scale=2.0, height_scale=2.0)
    model.net.AveragePool("twice", "smooth", kernel=2, stride=1, pads=[0, 0, 1, 1], order="NCHW")
    model.net.Tanh("l1", "t1")
    model.net.StopGradient("t1", "g1")
    brew.concat(model, ["smooth", "g1"], "both")
    brew.conv(model, "both", "maps", 24, 57, kernel=2, stride=2)
    batch = np.random.default_rng(size).standard_normal((2, 3, *size)).astype(np.float32)
    _same(_write(tmp_path / "net", model.net.Proto(), _filled(model.param_init_net.Proto())), batch)
