"""Every road to the CMU net's weights ends in the same init_net.pb, and faults are found before anything is written."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest
import torch

from models.architectures import ARCHITECTURES, Architecture
from models.catalog import find_entry
from models.convert import caffe, netdef, pickled, pytorch, tensorflow
from models.convert.__main__ import convert
from models.netpair import NetPairBuilder
from models.proto import caffe_pb2
from tests.support.cases import random_weights
from worker.engine.proto import netdef_pb2
from worker.errors import ModelError

ENTRY = find_entry("cmu_coco")
Weights = Dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def _thin(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """All 92 convolutions, but of 4 channels: the converters do not care, and 52 million weights take long."""
    if "full_size" not in request.fixturenames:
        conv = Architecture.conv

        def thin(net: Architecture, name: str, source: str, channels: int, *args: Any, **more: Any) -> str:
            net.channels[source] = min(4, net.channels[source])
            return conv(net, name, source, min(4, channels), *args, **more)

        monkeypatch.setattr(Architecture, "conv", thin)


@pytest.fixture
def full_size() -> None:
    """Ask for this to get the net as it is."""


@pytest.fixture
def weights(_thin: None) -> Weights:
    return random_weights(1, ARCHITECTURES["cmu_coco"]())


@pytest.fixture
def expected(weights: Weights) -> bytes:
    return _init_bytes(_built(weights))


def _built(weights: Weights, name: str = "cmu_coco") -> NetPairBuilder:
    return ARCHITECTURES["cmu_coco"]().build(name, weights, ENTRY.output_blobs)


def _init_bytes(builder: NetPairBuilder) -> bytes:
    return builder.init.SerializeToString(deterministic=True)


def _write_caffemodel(weights: Weights, path: Path, old: bool = False) -> None:
    net = caffe_pb2.NetParameter(name="cmu")
    for blob in weights:
        if blob.endswith("_w"):
            layer = (net.layers if old else net.layer).add(name=blob[:-2])
            for values in (weights[blob], weights[f"{blob[:-2]}_b"]):
                made = layer.blobs.add()
                made.data.extend(values.ravel().tolist())
                if old:
                    shape = (1,) * (4 - values.ndim) + values.shape
                    made.num, made.channels, made.height, made.width = shape
                else:
                    made.shape.dim.extend(values.shape)
    path.write_bytes(net.SerializeToString())


needs_safe_load = pytest.mark.skipif(
    not hasattr(torch.serialization, "add_safe_globals"), reason="this torch cannot read files safely"
)


def _write_state_dict(weights: Weights, path: Path, prefix: str = "") -> None:
    keys = {"w": "weight", "b": "bias"}
    torch.save({f"{prefix}{b[:-2]}.{keys[b[-1]]}": torch.from_numpy(v) for b, v in weights.items()}, path)


def test_caffemodel_gives_the_same_bytes(weights: Weights, expected: bytes, tmp_path: Path) -> None:
    _write_caffemodel(weights, tmp_path / "a.caffemodel")
    assert _init_bytes(caffe.convert(tmp_path / "a.caffemodel", ENTRY)) == expected


@needs_safe_load
@pytest.mark.parametrize("prefix", ["", "model1_1."])
def test_state_dict_gives_the_same_bytes(weights: Weights, expected: bytes, tmp_path: Path, prefix: str) -> None:
    _write_state_dict(weights, tmp_path / "a.pth", prefix)
    assert _init_bytes(pytorch.convert(tmp_path / "a.pth", ENTRY)) == expected


@pytest.mark.parametrize(
    ("protocol", "wrap"),
    [
        (2, lambda blobs: {"blobs": blobs, "cfg": "MODEL: x"}),  # Detectron's own form
        (4, lambda blobs: blobs),
        (5, lambda blobs: {"blobs": collections.OrderedDict(blobs)}),
    ],
)
def test_pickle_gives_the_same_bytes(
    weights: Weights, expected: bytes, tmp_path: Path, protocol: int, wrap: Callable[[Any], Any]
) -> None:
    path = tmp_path / "a.pkl"
    blobs = {**weights, "conv1_1_w_momentum": np.zeros(3, np.float32)}
    path.write_bytes(pickle.dumps(wrap(blobs), protocol))
    assert _init_bytes(pickled.convert(path, ENTRY)) == expected


def test_netdef_pair_gives_the_same_bytes_in_any_order(weights: Weights, expected: bytes, tmp_path: Path) -> None:
    builder = _built(weights, "something_else")
    operators = list(builder.init.op)[::-1]
    del builder.init.op[:]
    builder.init.op.extend(operators)
    (tmp_path / "predict_net.pb").write_bytes(builder.predict.SerializeToString())
    (tmp_path / "init_net.pb").write_bytes(builder.init.SerializeToString())
    for source in (tmp_path, tmp_path / "predict_net.pb"):
        assert _init_bytes(netdef.convert(source, ENTRY)) == expected


def test_old_caffemodel_is_read(tmp_path: Path) -> None:
    """The layers of 2014: their own field, and shapes of four numbers."""
    _write_caffemodel(
        {"conv1_1_w": np.ones((2, 3, 3, 3), np.float32), "conv1_1_b": np.ones(2, np.float32)},
        tmp_path / "a.caffemodel",
        old=True,
    )
    with pytest.raises(ModelError, match=r"182 missing.*2 misshapen: conv1_1_w \(2, 3, 3, 3\) instead of \(4, 3"):
        caffe.convert(tmp_path / "a.caffemodel", ENTRY)


def test_python_2_pickle_is_read(tmp_path: Path) -> None:
    """As Python 2 wrote it, protocol 0: text strings, numpy.core names, raw bytes as a string."""
    (tmp_path / "a.pkl").write_bytes(
        b"(dp0\nS'conv1_1_b'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntS'b'\ntRp4\n"
        b"(I1\n(I2\ntcnumpy\ndtype\np5\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S'\\x00\\x00\\x80?\\x00\\x00\\x00@'\ntbs."
    )
    np.testing.assert_array_equal(pickled.read_blobs(tmp_path / "a.pkl")["conv1_1_b"], [1.0, 2.0])


class _Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def _touch(path: str) -> Any:
    import os

    return _Hostile(os.system, f"touch {path}")


@pytest.mark.parametrize(
    "make",
    [
        _touch,
        lambda path: _Hostile(eval, f"open({path!r}, 'w')"),
        lambda path: _Hostile(getattr, "x", "upper"),
        lambda path: {"blobs": {"conv1_1_w": _Hostile(np.fromfile, "/etc/passwd")}},
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_hostile_pickle_is_refused_and_runs_nothing(make: Callable[[str], Any], protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(make(str(canary)), protocol))
    with pytest.raises(ModelError, match=r"wants to use \S+\.\S+, .* it was refused and nothing was run"):
        pickled.convert(tmp_path / "a.pkl", ENTRY)
    assert not canary.exists()


@needs_safe_load
def test_hostile_state_dict_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"conv1_1.weight": _touch(str(canary))}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="not a PyTorch file of plain tensors"):
        pytorch.convert(tmp_path / "a.pth", ENTRY)
    assert not canary.exists()


def test_unknown_blobs_of_a_pickle_are_reported(weights: Weights, expected: bytes, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({**weights, "fc1000_w": np.zeros(3, np.float32)}, 4))
    assert _init_bytes(pickled.convert(tmp_path / "a.pkl", ENTRY)) == expected
    assert "1 blobs that cmu_coco does not: fc1000_w" in caplog.text


def test_a_pickle_cannot_ask_for_memory_by_number(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"blobs": _Hostile(bytearray, 1 << 45)}))
    with pytest.raises(ModelError, match="wants to use a bytearray of int"):
        pickled.read_blobs(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_what_else_stands_in_a_pickle_is_left_out(protocol: int, tmp_path: Path) -> None:
    others = {"cfg": {"a": {1, 2}, "b": frozenset("x")}, "raw": bytearray(b"\xff\x00"), "z": 1j, "n": np.float32(2)}
    document = {"blobs": {"conv1_1_b": np.arange(3, dtype=np.float32), **others}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(document, protocol))
    assert list(pickled.read_blobs(tmp_path / "a.pkl")) == ["conv1_1_b"]


@needs_safe_load
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv1_1_w"), "1 missing: conv1_1_w"),
        (
            lambda w: w.update(conv1_1_w=w["conv1_1_w"].transpose(1, 0, 2, 3)),
            r"1 misshapen: conv1_1_w \(3, 4, 3, 3\) instead of \(4, 3, 3, 3\)",
        ),  # as TensorFlow has it
        (
            lambda w: w.update(conv9_w=np.zeros((1, 1, 1, 1), np.float32), conv9_b=np.zeros(1, np.float32)),
            "2 extra: conv9.weight, conv9.bias",
        ),
        (lambda w: w.update(conv1_1_b=np.full(4, np.nan, np.float32)), "1 not finite: conv1_1_b"),
    ],
)
def test_blobs_are_compared_before_anything_is_written(
    weights: Weights, tmp_path: Path, change: Callable[[Weights], Any], message: str
) -> None:
    changed = dict(weights)
    change(changed)
    _write_state_dict(changed, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=message):
        convert(tmp_path / "a.pth", "cmu_coco", tmp_path / "models", accept_licence=True)
    assert not (tmp_path / "models" / "cmu_coco").exists()


@pytest.mark.parametrize("ending", ["caffemodel", "pth", "pkl", "pb"])
@pytest.mark.parametrize("data", [b"", b"\x0a\xff\xff", b"<html>404</html>"])
def test_a_file_of_another_kind_is_one_clear_error(tmp_path: Path, ending: str, data: bytes) -> None:
    (tmp_path / f"a.{ending}").write_bytes(data)
    with pytest.raises(ModelError, match=f"a.{ending}|cmu_coco"):
        convert(tmp_path / f"a.{ending}", "cmu_coco", tmp_path / "models", accept_licence=True)
    assert not (tmp_path / "models" / "cmu_coco").exists()


@pytest.mark.parametrize("ending", ["caffemodel", "pb"])
def test_three_gigabytes_are_refused_before_they_are_read(tmp_path: Path, ending: str) -> None:
    with (tmp_path / f"a.{ending}").open("wb") as file:
        file.truncate(3 << 30)
    converter = {"caffemodel": caffe, "pb": tensorflow}[ending]
    with pytest.raises(ModelError, match=f"a.{ending} is larger than 2147483647 bytes"):
        converter.convert(tmp_path / f"a.{ending}", ENTRY)


def test_the_wrong_file_under_a_known_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pose_iter_440000.caffemodel"
    path.write_bytes(b"something else")
    with pytest.raises(ModelError, match=f"has SHA-256 [0-9a-f]{{64}}, expected SHA-256 {ENTRY.files[0].sha256}"):
        convert(path, "cmu_coco", tmp_path / "models", accept_licence=True)


def test_the_licence_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"academic and non-commercial .* --accept-licence"):
        convert(tmp_path / "a.pth", "cmu_coco", tmp_path / "models")


@pytest.mark.usefixtures("full_size")
def test_the_cmu_net_is_the_known_one() -> None:
    shapes = ARCHITECTURES["cmu_coco"]().parameters
    assert len(shapes) == 184
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 52_311_446
    assert shapes["Mconv1_stage2_L1_w"] == (128, 185, 7, 7)
    zeros = {blob: np.zeros(shape, np.float32) for blob, shape in shapes.items()}
    predict: netdef_pb2.NetDef = _built(zeros).predict
    kinds = collections.Counter(operator.type for operator in predict.op)
    assert kinds == {"Conv": 92, "Relu": 80, "MaxPool": 3, "Concat": 5}
    joined = next(operator for operator in predict.op if operator.type == "Concat")
    assert list(joined.input) == ["conv5_5_CPM_L1", "conv5_5_CPM_L2", "conv4_4_CPM"]
