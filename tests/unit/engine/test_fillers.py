"""Init nets: each fill, and the faults of each."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

import numpy as np
import pytest

from tests.support.nets import Op, netdef
from worker.engine.fillers import FILLERS
from worker.engine.netdef import check_pair
from worker.engine.proto import netdef_pb2
from worker.errors import ModelError


def _fill(kind: str, **args: Any) -> np.ndarray:
    return _parameters([(kind, [], ["p"], args)])["p"]


def _parameters(fills: Any) -> Dict[str, np.ndarray]:
    predict = netdef([("Copy", ["x"], ["y"], {})])
    return check_pair(predict, netdef(fills), "x", ("y",)).parameters


@pytest.mark.parametrize(
    ("kind", "values", "dtype"),
    [
        ("GivenTensorFill", [1.5, -2.0, 0.25, 3.0, 1e30, -0.0], np.float32),
        ("GivenTensorDoubleFill", [1.5, -2.0, 0.25, 3.0, 4.0, 5.0], np.float64),
        ("GivenTensorIntFill", [1, -2, 3, 4, 5, 2**31 - 1], np.int32),
        ("GivenTensorInt64Fill", [1, -2, 3, 4, 5, 2**40], np.int64),
        ("GivenTensorInt16Fill", [1, -2, 3, 4, 5, 6], np.int16),
        ("GivenTensorBoolFill", [1, 0, 1, 1, 0, 0], np.bool_),
    ],
)
def test_given_values_of_each_type(kind: str, values: Any, dtype: Any) -> None:
    found = _fill(kind, shape=[2, 3], values=values)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array(values, dtype).reshape(2, 3))


def test_many_floats_are_read_exactly() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    np.testing.assert_array_equal(_fill("GivenTensorFill", shape=[100, 100], values=values.tolist()).ravel(), values)


def test_an_empty_blob() -> None:
    assert _fill("GivenTensorFill", shape=[0], values=[]).shape == (0,)


@pytest.mark.parametrize(
    ("args", "dtype", "value"),
    [
        ({}, np.float32, 0.0),  # Caffe2's default: zeros
        ({"value": 1.5}, np.float32, 1.5),
        ({"value": 7, "dtype": 2}, np.int32, 7),
        ({"value": 7, "dtype": 10}, np.int64, 7),
        ({"value": 1, "dtype": 5}, np.bool_, True),
        ({"value": 200, "dtype": 6}, np.uint8, 200),
        ({"value": 0.5, "dtype": 13}, np.float64, 0.5),
    ],
)
def test_constant_fill(args: Dict[str, Any], dtype: Any, value: Any) -> None:
    found = _fill("ConstantFill", shape=[3, 2], **args)
    assert found.dtype == dtype
    assert found.shape == (3, 2)
    assert (found == value).all()


def test_gaussian_fill() -> None:
    found = _fill("GaussianFill", shape=[100, 100], mean=2.0, std=0.5)
    assert found.dtype == np.float32
    assert found.mean() == pytest.approx(2.0, abs=0.03)
    assert found.std() == pytest.approx(0.5, abs=0.03)
    assert np.abs(_fill("GaussianFill", shape=[100, 100]).std() - 1) < 0.03


def test_xavier_fill() -> None:
    found = _fill("XavierFill", shape=[50, 20, 3, 3])
    bound = np.sqrt(3 / 180)  # fan-in 20 x 3 x 3
    assert found.dtype == np.float32
    assert np.abs(found).max() <= bound
    assert found.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


def test_msra_is_normal_about_zero_as_wide_as_the_fan_out_says() -> None:
    found = _fill("MSRAFill", shape=[50, 20, 3, 3])
    assert found.dtype == np.float32
    assert found.mean() == pytest.approx(0, abs=0.003)
    assert found.std() == pytest.approx(np.sqrt(2 / 450), rel=0.05)  # fan-out 50 x 3 x 3


def test_uniform_is_between_its_bounds() -> None:
    found = _fill("UniformFill", shape=[100, 100], min=-2.0, max=1.0)
    assert found.dtype == np.float32
    assert -2 <= found.min() < -1.99 < 0.99 < found.max() <= 1
    plain = _fill("UniformFill", shape=[100, 100])
    assert 0 <= plain.min() < 0.01 < 0.99 < plain.max() <= 1


def test_random_fills_are_the_same_everywhere_and_differ_by_blob() -> None:
    fills = [("XavierFill", [], [blob], {"shape": [4, 4]}) for blob in "ab"]
    first, second = _parameters(fills), _parameters(fills[::-1])
    np.testing.assert_array_equal(first["a"], second["a"])
    assert not np.array_equal(first["a"], first["b"])


def test_every_fill_is_tested_here() -> None:
    assert set(FILLERS) == {
        *("ConstantFill", "GaussianFill", "MSRAFill", "UniformFill", "XavierFill"),
        *("GivenTensorFill", "GivenTensorBoolFill"),
        *("GivenTensorDoubleFill", "GivenTensorInt16Fill", "GivenTensorInt64Fill", "GivenTensorIntFill"),
    }


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (("GivenTensorFill", [], ["p"], {"shape": [2, 2], "values": [1.0]}), r"'p': it has 1 values for the shape"),
        (("GivenTensorFill", [], ["p"], {"shape": [-1], "values": [1.0]}), r"'p': its shape \(-1,\) is negative"),
        (("GivenTensorFill", [], ["p"], {"values": [1.0]}), r"'p': its GivenTensorFill has no shape"),
        (("ConstantFill", [], ["p"], {"shape": [2**31, 2**31]}), r"'p': its shape .* too large"),
        (("ConstantFill", [], ["p"], {"shape": [1], "dtype": 4}), r"'p': its data type 4 is not one of"),
        (("XavierFill", [], ["p"], {"shape": [1], "extra_shape": [2]}), r"'p': .*'extra_shape', which is not"),
        (
            ("DiagonalFill", [], ["p"], {"shape": [1]}),
            r"DiagonalFill making \['p'\], which is not supported; sup",
        ),
        (("UniformFill", [], ["p"], {"shape": [1], "min": 1.0}), r"'p': its min 1 is not below its max 1"),
        (("ConstantFill", ["q"], ["p"], {"shape": [1]}), r"ConstantFill making \['p'\] from \['q'\]; it must"),
        (("ConstantFill", [], [], {"shape": [1]}), r"ConstantFill making \[\] from \[\]; it must make one blob"),
        (("ConstantFill", [], ["p", "q"], {"shape": [1]}), r"making \['p', 'q'\] from"),
        (("GivenTensorIntFill", [], ["p"], {"shape": [1], "values": [2**40]}), r"'p': .* no int32"),
    ],
)
def test_faults_are_one_sentence_that_names_the_blob(fill: Op, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        _parameters([fill])
    assert str(caught.value).startswith("The net 'small' ")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("blobs", ["abcdefghi", "aaaaaaaaa"], ids=["many", "one again and again"])
@pytest.mark.parametrize("kind", ["ConstantFill", "GaussianFill", "MSRAFill", "UniformFill", "XavierFill"])
def test_all_parameters_of_a_net_are_bounded_together(monkeypatch: pytest.MonkeyPatch, kind: str, blobs: str) -> None:
    """A file of a thousand bytes asked for a terabyte, 2 GiB at a time."""
    monkeypatch.setattr("worker.engine.netdef._MAX_ELEMENTS", 8000)
    fills: List[Op] = [(kind, [], [blob], {"shape": [10, 100]}) for blob in blobs]
    assert len(_parameters(fills[:8])) == len(set(blobs[:8]))
    with pytest.raises(ModelError, match=r"its shape \(10, 100\) is .* too large: 0 elements are left") as caught:
        _parameters(fills)
    assert "\n" not in str(caught.value)


def test_a_net_with_unknown_fields_is_read_all_the_same() -> None:
    """Newer writers may say more than we know."""
    values: Mapping[str, Any] = {"shape": [2], "values": [1.0, 2.0]}
    init = netdef([("GivenTensorFill", [], ["p"], values)])
    argument = init.op[0].arg[1]
    unknown = bytes([15 << 3 | 2, 1, 0])  # field 15, one byte
    init.op[0].arg[1].CopyFrom(netdef_pb2.Argument.FromString(argument.SerializeToString() + unknown))
    predict = netdef([("Copy", ["x"], ["y"], {})])
    np.testing.assert_array_equal(check_pair(predict, init, "x", ("y",)).parameters["p"], [1, 2])
