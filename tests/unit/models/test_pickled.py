"""Pickles that were made to crash Python, or to fill its memory, when they are read."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from models.convert.pickled import read_blobs
from worker.errors import ModelError

DTYPE = b"cnumpy\ndtype\n"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
FLOAT = DTYPE + b"(S'f4'\nI0\nI1\ntR"
LITTLE = FLOAT + b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
#: A dtype of eight bytes with the object field `a` at byte 4096.
FIELDS = b"(S'a'\nt(dS'a'\n(" + DTYPE + b"(S'O8'\nI0\nI1\ntRI4096\nts"


def _dict_of(value: bytes) -> bytes:
    return b"(dS'conv1_1_b'\n" + value + b"s."


def _dtype(name: bytes, state: bytes = b"") -> bytes:
    return DTYPE + b"(S'" + name + b"'\nI0\nI1\ntR" + (b"(" + state + b"tb" if state else b"")


def _array(shape: bytes, dtype: bytes = LITTLE, data: bytes = rb"S'\x00\x00\x80?'" + b"\n") -> bytes:
    return ARRAY + b"(I1\n(" + shape + b"t" + dtype + b"I00\n" + data + b"tb"


def _scalar(dtype: bytes) -> bytes:
    return SCALAR + b"(" + dtype + b"S'" + b"A" * 64 + b"'\ntR"


#: What each does, and what is said of it.
ATTACKS = {
    "a dtype that is made a structure, then a scalar of it": (
        _scalar(_dtype(b"V8", b"I3\nS'|'\nN" + FIELDS + b"I8\nI1\nI16\n")),
        "the type 'V8'",
    ),
    "a plain dtype that is made a structure": (
        _scalar(_dtype(b"f8", b"I3\nS'<'\nN" + FIELDS + b"I8\nI1\nI16\n")),
        "the type 'O8'",
    ),
    "a structure of plain fields far outside": (
        _scalar(_dtype(b"f8", b"I3\nS'<'\nN(S'a'\nt(dS'a'\n(" + FLOAT + b"I1073741824\ntsI8\nI1\nI16\n")),
        "not a plain number",
    ),
    "a base of another shape": (
        _scalar(_dtype(b"f8", b"I3\nS'<'\n(" + FLOAT + b"(I1073741824\nttNNI8\nI1\nI0\n")),
        "not a plain number",
    ),
    "an object by its address": (_scalar(_dtype(b"O8")), "the type 'O8'"),
    "an object by another name": (_scalar(_dtype(b"object")), "the type 'object'"),
    "an array of objects": (_array(b"I1\n", _dtype(b"O8"), b"(I1\nl"), "the type 'O8'"),
    "texts": (_array(b"I1\n", _dtype(b"U1")), "the type 'U1'"),
    "bytes without end": (_scalar(_dtype(b"V2147483647")), "the type 'V2147483647'"),
    "dates": (_scalar(_dtype(b"M8[ns]")), "the type"),
    "fields by a text": (_scalar(_dtype(b"f4,O")), "the type 'f4,O'"),
    "a subarray by a text": (_scalar(_dtype(b"(99999,99999)f4")), "the type"),
    "a negative size": (_array(b"I-1\n"), "not given by its bytes"),
    "a list instead of bytes": (_array(b"I1\n", LITTLE, b"(I1\nl"), "not given by its bytes"),
    "a type that is none": (_array(b"I1\n", b"S'O8'\n"), "the type 'O8'"),
    "strides and offset": (b"cnumpy\nndarray\n((I9\ntS'f8'\nNI0\n(I-4096\ntS'C'\ntR", "numpy.ndarray as a function"),
    "a function that is changed": (SCALAR + b"(N(dS'__defaults__'\n(I1\ntstb", "to change it"),
    "a size that bytes do not fill": (_array(b"I4611686018427387904\nI4\n"), "not a pickle"),
    "no bytes for a size beyond all": (_array(b"I0\nI9223372036854775808\n", LITTLE, b"S''\n"), "not a pickle"),
    "a dtype of a dict": (DTYPE + b"((dtR", "not a pickle"),
    "an order that is none": (_scalar(_dtype(b"f8", b"I3\nS'x'\nNNNI8\nI1\nI0\n")), "not a plain number"),
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_only_plain_numbers_are_read(tmp_path: Path, kind: str) -> None:
    value, said = ATTACKS[kind]
    (tmp_path / "a.pkl").write_bytes(_dict_of(value))
    with pytest.raises(ModelError, match=said.replace("[", r"\[")):
        read_blobs(tmp_path / "a.pkl")


@pytest.mark.parametrize("size", [1 << 31, -1, 0])
def test_a_size_that_a_dtype_claims_counts_for_nothing(tmp_path: Path, size: int) -> None:
    dtype = _dtype(b"f4", b"I3\nS'<'\nNNNI%d\nI%d\nI63\n" % (size, size))
    (tmp_path / "a.pkl").write_bytes(_dict_of(_array(b"I1\n", dtype)))
    assert read_blobs(tmp_path / "a.pkl")["conv1_1_b"] == [1.0]


@pytest.mark.parametrize(
    "document",
    [
        b"\x80\x02})" + b"\x85" * 3_000_000 + b"K\x01s.",  # a key in so many tuples: its hash overflows the stack
        b"\x80\x02N" + b"r" + struct.pack("<I", 2**32 - 1) + b".",  # a place in the memo that takes 64 GB
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",  # bytes by their number alone
        b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
    ],
    ids=["deep key", "memo", "bytes", "bytearray"],
)
def test_what_crashes_a_reader_is_an_error_of_its_file(tmp_path: Path, document: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(document)
    with pytest.raises(ModelError, match="not a pickle"):
        read_blobs(tmp_path / "a.pkl")


def test_numbers_in_any_order_of_bytes_and_axes(tmp_path: Path) -> None:
    right = np.arange(6, dtype=np.float32).reshape(2, 3)
    blobs = {
        "big": right.astype(">f4"),
        "fortran": np.asfortranarray(right),
        "double": right.astype(np.float64),
        "half": right.astype(np.float16),
        "view": np.pad(right, 1)[1:-1, 1:-1],
        "scalar": np.float32(3),
        "flags": np.array([True]),
    }
    for protocol in range(6):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(blobs, protocol))
        found = read_blobs(tmp_path / "a.pkl")
        assert sorted(found) == ["big", "double", "fortran", "half", "view"]
        for name in ("big", "double", "fortran", "half", "view"):
            np.testing.assert_array_equal(found[name], right)
            assert found[name].dtype == np.float32
