"""What init nets are made of: operators that fill one blob each."""

from __future__ import annotations

import zlib
from typing import Any, Callable, Dict, Tuple

import numpy as np

#: Caffe2's TensorProto.DataType → numpy, for ConstantFill.
_DTYPES = {1: np.float32, 2: np.int32, 5: np.bool_, 6: np.uint8, 7: np.int8, 9: np.int16, 10: np.int64, 13: np.float64}
#: What random and constant fills may carry beside shape and dtype; all others carry values.
_ARGUMENTS = {
    "ConstantFill": frozenset({"value"}),
    "GaussianFill": frozenset({"mean", "std"}),
    "MSRAFill": frozenset(),
    "UniformFill": frozenset({"max", "min"}),
    "XavierFill": frozenset(),
}
#: Arguments without meaning where a net is filled once, on one device.
_HINTS = ("input_as_shape", "order", "run_once")


def fill(kind: str, args: Dict[str, Any], blob: str, most: int) -> np.ndarray:
    """The parameter that an init operator of type `kind` makes.

    Random fills are seeded by the blob's name, so that one net is the same net everywhere.

    Args:
        most: how many elements it may have.

    Raises:
        ValueError: the values do not fit the shape, the shape is missing, negative or too large, or an argument is
            not supported.
    """
    allowed = _ARGUMENTS.get(kind, frozenset({"values"})) | {"shape", "dtype", *_HINTS}
    unknown = sorted(set(args) - allowed)
    if unknown:
        raise ValueError(
            f"its {kind} has the argument {unknown[0]!r}, which is not supported; supported are "
            f"{', '.join(sorted(allowed))}"
        )
    if "shape" not in args:
        raise ValueError(f"its {kind} has no shape")
    shape = tuple(int(size) for size in np.atleast_1d(args["shape"]))
    if any(size < 0 for size in shape) or int(np.prod(shape, dtype=object)) > most:
        raise ValueError(f"its shape {shape} is negative or too large: {most} elements are left of the net's most")
    return FILLERS[kind](args, shape, blob)


def _given(dtype: Any) -> Callable[[Dict[str, Any], Tuple[int, ...], str], np.ndarray]:
    def make(args: Dict[str, Any], shape: Tuple[int, ...], _: str) -> np.ndarray:
        given = np.asarray(args.get("values", ()))
        values = given.astype(dtype)
        if given.dtype.kind == "i" and not np.array_equal(values, given):
            raise ValueError(f"it has values that are no {np.dtype(dtype).name}")
        if values.size != int(np.prod(shape)):
            raise ValueError(f"it has {values.size} values for the shape {shape}")
        return values.reshape(shape)

    return make


def _constant(args: Dict[str, Any], shape: Tuple[int, ...], _: str) -> np.ndarray:
    dtype = int(args.get("dtype", 1))
    if dtype not in _DTYPES:
        raise ValueError(f"its data type {dtype} is not one of {sorted(_DTYPES)}")
    return np.full(shape, args.get("value", 0), _DTYPES[dtype])


def _gaussian(args: Dict[str, Any], shape: Tuple[int, ...], blob: str) -> np.ndarray:
    draw = _generator(blob).standard_normal(shape, np.float32)
    return (draw * np.float32(args.get("std", 1.0)) + np.float32(args.get("mean", 0.0))).astype(np.float32)


def _xavier(args: Dict[str, Any], shape: Tuple[int, ...], blob: str) -> np.ndarray:
    fan_in = max(1, int(np.prod(shape[1:])))
    bound = np.sqrt(3.0 / fan_in)
    return _generator(blob).uniform(-bound, bound, shape).astype(np.float32)


def _msra(args: Dict[str, Any], shape: Tuple[int, ...], blob: str) -> np.ndarray:
    fan_out = max(1, int(np.prod(shape)) // max(1, shape[1] if len(shape) > 1 else 1))
    return _generator(blob).standard_normal(shape, np.float32) * np.float32(np.sqrt(2.0 / fan_out))


def _uniform(args: Dict[str, Any], shape: Tuple[int, ...], blob: str) -> np.ndarray:
    low, high = float(args.get("min", 0.0)), float(args.get("max", 1.0))
    if not low < high:
        raise ValueError(f"its min {low:g} is not below its max {high:g}")
    return _generator(blob).uniform(low, high, shape).astype(np.float32)


def _generator(blob: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(blob.encode()))


FILLERS: Dict[str, Callable[[Dict[str, Any], Tuple[int, ...], str], np.ndarray]] = {
    "ConstantFill": _constant,
    "GaussianFill": _gaussian,
    "GivenTensorBoolFill": _given(np.bool_),
    "GivenTensorDoubleFill": _given(np.float64),
    "GivenTensorFill": _given(np.float32),
    "GivenTensorInt16Fill": _given(np.int16),
    "GivenTensorInt64Fill": _given(np.int64),
    "GivenTensorIntFill": _given(np.int32),
    "MSRAFill": _msra,
    "UniformFill": _uniform,
    "XavierFill": _xavier,
}
