"""A net that cannot run is refused when it is loaded, in one sentence that says where and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, Sequence, Type

import numpy as np
import pytest

from tests.support.nets import Op, pose_operators, pose_parameters, write_pose_net
from worker.engine import load, torch_engine
from worker.engine.net import device_errors
from worker.engine.netdef import OPERATORS, read_net
from worker.errors import DeviceLost, DeviceOutOfMemory, ModelError

LAST: Op = ("Relu", ["a"], ["y"], {})


def _sentence(directory: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(directory)
    sentence = str(caught.value)
    assert sentence.endswith(".") or "python -m models.fetch" in sentence
    assert "\n" not in sentence
    return sentence


#: Operators beside the last, parameters beside the pose net's, and what the sentence must have.
NETS: Sequence[Any] = [
    ([("Foo", ["x"], ["a"], {})], ["operator Foo making blob 'a'", "not supported; supported are Add"]),
    ([("Relu", ["x"], ["a"], {"alpha": 0.1})], ["operator Relu making blob 'a'", "argument 'alpha'"]),
    (
        [("Conv", ["x", "w"], ["a"], {"kernel": 8, "fused_activation": "RELU"})],
        ["operator Conv making blob 'a'", "argument 'fused_activation'", "supported are"],
    ),
    ([("Conv", ["x", "w"], ["a"], {"kernel": 8, "order": "NHWC"})], ["making blob 'a'", "order other than NCHW"]),
    ([("Conv", ["x"], ["a"], {})], ["making blob 'a'", "1 inputs; it takes 2 to 3"]),
    ([("Relu", ["x"], [], {})], ["operator Relu that makes no blob"]),
    ([("Conv", ["x", "lost_w"], ["a"], {"kernel": 8})], ["making blob 'a'", "blob 'lost_w'", "made by nothing"]),
    (
        [("Sum", ["x", "c"], ["b"], {}), ("Relu", ["b"], ["c"], {}), ("Relu", ["c"], ["a"], {})],
        ["operator Sum making blob 'b'", "blob 'c'", "later or in a cycle"],
    ),
    ([("Sum", ["x", "a"], ["a"], {})], ["making blob 'a'", "cycle"]),
    (
        [("Conv", ["x", "wrong_w"], ["a"], {"kernel": 3})],
        ["operator Conv making blob 'a'", "wrong_w (4, 5, 3, 3)", "do not fit"],
    ),
    ([("Conv", ["x", "w", "wrong_b"], ["a"], {"kernel": 8})], ["making blob 'a'", "wrong_b (3,)", "do not fit"]),
    ([("Conv", ["x", "w"], ["a"], {"kernel": 8, "group": 2})], ["making blob 'a'", "do not fit"]),
    ([("Conv", ["x", "integers"], ["a"], {"kernel": 3})], ["making blob 'a'", "integers (4, 3, 3, 3)", "do not fit"]),
    ([("Sum", ["x", "wrong_b"], ["a"], {})], ["operator Sum making blob 'a'", "do not fit"]),
    (
        [("MaxPool", ["x"], ["b"], {"kernel": 2, "stride": 2}), ("Concat", ["x", "b"], ["a", "d"], {})],
        ["operator Concat making blob 'a' from x (1, 3, 64, 64), b (1, 3, 32, 32)"],
    ),
    ([("Conv", ["x", "w"], ["a"], {"kernel": 8, "stride": 0})], ["making blob 'a' that has the stride 0x0"]),
    ([("Conv", ["x", "w"], ["a"], {"kernel": 8, "pad": -1})], ["'a'", "may be negative"]),
    ([("Conv", ["x", "w"], ["a"], {"kernel": 8, "pads": [1, 2]})], ["'a'", "has 2 pads; it needs 4"]),
    ([("MaxPool", ["x"], ["a"], {})], ["'a'", "has the kernel 0x0"]),
    ([("MaxPool", ["x"], ["a"], {"kernel": 2, "pad": 2})], ["'a'", "not smaller than its kernel"]),
    ([("MaxPool", ["x"], ["a"], {"kernel": 2, "dilation": 2})], ["'a'", "dilation"]),
    ([("MaxPool", ["x"], ["a"], {"kernel": 2, "legacy_pad": 2})], ["'a'", "legacy_pad"]),
    ([("SpatialBN", ["x", "c3", "c3", "c3", "c3"], ["a"], {})], ["operator SpatialBN making blob 'a'", "is_test"]),
    ([("Dropout", ["x"], ["a", "m"], {"is_test": 0})], ["operator Dropout making blob 'a'", "is_test"]),
    ([("Reshape", ["x"], ["a", "old"], {})], ["operator Reshape making blob 'a'", "no shape"]),
    ([("Reshape", ["x", "x"], ["a", "old"], {})], ["making blob 'a'", "needs blob 'x' to be a parameter"]),
    # the input of this FC has the same size for every image: it can be checked like any other operator
    (
        [("AveragePool", ["x"], ["g"], {"global_pooling": 1}), ("FC", ["g", "c5x4", "c5"], ["a"], {})],
        ["operator FC making blob 'a'", "c5x4 (5, 4)", "do not fit"],
    ),
]
PARAMETERS: Dict[str, np.ndarray] = {
    **pose_parameters(),
    "wrong_w": np.zeros((4, 5, 3, 3), np.float32),
    "wrong_b": np.zeros(3, np.float32),
    "integers": np.zeros((4, 3, 3, 3), np.int32),
    "c3": np.ones(3, np.float32),
    "c5": np.ones(5, np.float32),
    "c5x4": np.ones((5, 4), np.float32),
}


@pytest.mark.parametrize(("operators", "words"), NETS)
def test_a_net_that_cannot_run(operators: Sequence[Op], words: Sequence[str], tmp_path: Path) -> None:
    sentence = _sentence(write_pose_net(tmp_path / "small", [*operators, LAST], PARAMETERS))
    assert sentence.startswith("The net 'small' ")
    for word in words:
        assert word in sentence


def test_an_unsupported_operator_is_told_with_all_supported_ones(tmp_path: Path) -> None:
    sentence = _sentence(write_pose_net(tmp_path / "small", [("Foo", ["x"], ["y"], {})]))
    assert ", ".join(sorted(OPERATORS)) in sentence


def test_an_output_that_nothing_makes(tmp_path: Path) -> None:
    sentence = _sentence(write_pose_net(tmp_path / "small", [("Relu", ["x"], ["z"], {})]))
    assert "never makes its output blob 'y'" in sentence


@pytest.mark.parametrize(
    ("parameters", "stride", "shape"),
    [
        ({"w": np.zeros((56, 3, 8, 8), np.float32), "b": np.zeros(56, np.float32)}, 8, "(1, 56, 8, 8)"),
        (None, 4, "(1, 57, 16, 16)"),
    ],
)
def test_an_output_that_is_not_what_the_manifest_promises(
    parameters: Any, stride: int, shape: str, tmp_path: Path
) -> None:
    operators = [("Conv", ["x", "w", "b"], ["y"], {"kernel": stride, "stride": stride})]
    if parameters is None:
        parameters = {"w": np.zeros((57, 3, 4, 4), np.float32), "b": np.zeros(57, np.float32)}
    sentence = _sentence(write_pose_net(tmp_path / "small", operators, parameters))
    assert "its output 'y'" in sentence
    assert shape in sentence
    assert "stride 8" in sentence


def test_init_net_of_another_net(tmp_path: Path) -> None:
    sentence = _sentence(write_pose_net(tmp_path / "small", parameters={"other_w": np.zeros(3, np.float32)}))
    assert "needs blob 'w', which is made by nothing" in sentence


def test_a_fully_connected_net_of_one_size_loads(tmp_path: Path) -> None:
    """Its size is not the one that shapes are checked with; that is no fault of the net."""
    operators = [
        ("Conv", ["x", "w", "b"], ["c"], {"kernel": 8, "stride": 8}),
        ("Reshape", ["c"], ["f", "old"], {"shape": [1, 57 * 4 * 6]}),
        ("Reshape", ["f"], ["y", "old2"], {"shape": [1, 57, 4, 6]}),
    ]
    net = load(write_pose_net(tmp_path / "small", operators))
    heatmaps, pafs = net(np.zeros((1, 32, 48, 3), np.uint8))
    assert (heatmaps.shape, pafs.shape) == ((1, 19, 4, 6), (1, 38, 4, 6))


def _rehash(directory: Path) -> None:
    """Make the manifest agree with damaged files, so that the parser meets them."""
    from worker.engine.manifest import sha256_of

    document = json.loads((directory / "model.json").read_text())
    for name in document["files"]:
        document["files"][name]["sha256"] = sha256_of(directory / name)
    (directory / "model.json").write_text(json.dumps(document))


@pytest.mark.parametrize("name", ["predict_net.pb", "init_net.pb"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], "truncated or not a Caffe2 NetDef"),
        (lambda data: b"", "has no operators"),
        (lambda data: b"<html>404</html>", "not a Caffe2 NetDef"),
    ],
)
def test_a_damaged_file(name: str, damage: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "small")
    (directory / name).write_bytes(damage((directory / name).read_bytes()))
    sentence = _sentence(directory)  # first of all the checksum
    assert f"{name} has SHA-256" in sentence
    assert "python -m models.fetch small" in sentence
    _rehash(directory)
    sentence = _sentence(directory)
    assert str(directory / name) in sentence
    assert words in sentence


@pytest.mark.parametrize("name", ["predict_net.pb", "init_net.pb", "model.json"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "small")
    (directory / name).unlink()
    sentence = _sentence(directory)
    assert name in sentence
    assert str(directory) in sentence
    assert "python -m models.fetch small" in sentence


def test_a_file_larger_than_a_protobuf_can_be(tmp_path: Path) -> None:
    """Three gigabytes, all of them holes: nothing is read."""
    path = tmp_path / "init_net.pb"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ModelError, match=r"init_net\.pb is larger than 2147483647 bytes"):
        read_net(path)


def test_a_directory_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read \(Is a directory\)"):
        read_net(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("name"), "name: field required"),
        (lambda d: d.update(schema=2), "schema 2, expected 1"),
        (lambda d: d.update(skeleton=18), "skeleton.str: input should be a valid string"),
        (lambda d: d.update(input=[]), "model.json is not a valid manifest"),
        (lambda d: d["input"].update(mean=[1, 2]), "not a valid manifest"),
        (lambda d: d["input"].update(mean=["a", 2, 3]), "not a valid manifest"),
        (lambda d: d["input"].update(channel_order="GRB"), "input.channel_order: input should be 'BGR' or 'RGB'"),
        (lambda d: d["input"].update(scale=float("nan")), "input.scale: input should be a finite number"),
        (lambda d: d["input"].update(scale=0), "input: the scale must not be 0"),
        (lambda d: d["input"].update(stride=0), "input.stride: input should be greater than or equal to 1"),
        (lambda d: d["input"].update(pad_value=256), "input.pad_value: input should be less than or equal to 255"),
        (lambda d: d["outputs"]["heatmaps"].update(stop=0), "heatmaps: there are no channels from 0 to 0"),
        (
            lambda d: d["outputs"]["pafs"].update(start=-38, stop=0),
            "pafs.start: input should be greater than or equal to 0",
        ),
        (lambda d: d["files"].pop("init_net.pb"), "KeyError('init_net.pb')"),
    ],
)
def test_a_manifest_that_is_wrong(change: Callable[[Dict[str, Any]], Any], words: str, tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "small")
    document = json.loads((directory / "model.json").read_text())
    change(document)
    (directory / "model.json").write_text(json.dumps(document))
    sentence = _sentence(directory)
    assert str(directory / "model.json") in sentence
    assert words in sentence


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "\x00"])
def test_a_manifest_that_is_none(text: str, tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "small")
    (directory / "model.json").write_text(text)
    assert str(directory / "model.json") in _sentence(directory)


def test_an_engine_or_precision_that_does_not_exist(tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "small", pose_operators())
    with pytest.raises(ModelError, match="no engine 'onnx'"):
        load(directory, engine="onnx")
    with pytest.raises(ModelError, match="no precision 'int8'"):
        load(directory, precision="int8")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", DeviceOutOfMemory),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", DeviceOutOfMemory),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", DeviceOutOfMemory),
        ("GET was unable to find an engine to execute this computation", DeviceOutOfMemory),
        ("FIND was unable to find an engine to execute this computation", DeviceOutOfMemory),
        ("CUDA error: an illegal memory access was encountered", DeviceLost),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", DeviceLost),
        ("CUDA error: unspecified launch failure", DeviceLost),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", DeviceLost),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", DeviceLost),
        ("No CUDA GPUs are available", DeviceLost),
        # A question that is not taken is not taken next time, either, and others are.
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a", RuntimeError),
        ("cuDNN error: CUDNN_STATUS_BAD_PARAM", RuntimeError),
        ("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`", RuntimeError),
        ("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED", RuntimeError),
        ("The size of tensor a (4) must match the size of tensor b (5)", RuntimeError),
    ],
)
def test_what_a_gpu_says_is_sorted(said: str, expected: Type[Exception]) -> None:
    with pytest.raises(expected) as caught, device_errors("cuda:0", (1, 3, 8, 8), torch_engine._BROKEN):
        raise RuntimeError(said)
    assert type(caught.value) is expected


def test_a_net_that_does_not_fit_when_it_is_loaded_is_short_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that another net makes room for it."""

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 200.00 MiB.")

    monkeypatch.setattr(torch_engine.torch.nn.Module, "to", full)
    with pytest.raises(DeviceOutOfMemory, match="The net does not fit into the memory of cuda:0; serve a smaller one"):
        load(write_pose_net(tmp_path / "net"), device="cuda:0", precision="fp16")
