"""Caffe nets by their definition: what is converted computes what OpenCV's importer does, what is not is said."""

from __future__ import annotations

import contextlib
import resource
import shlex
import time
from pathlib import Path
from typing import Any, Tuple

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from models.convert import caffe
from models.convert.__main__ import main
from models.convert.prototxt import read_definition, to_architecture
from models.proto import caffe_pb2
from tests.support.caffe_nets import (
    OPENCV,
    PROTOTXT,
    RECORDED,
    caffe_entry,
    caffe_input,
    caffe_weights,
    opencv_maps,
    write_caffemodel,
)
from tests.support.cases import TOLERANCE
from tests.support.documents import example
from worker.engine import load
from worker.engine.netdef import check_pair
from worker.engine.passes import optimise
from worker.errors import ModelError

ENTRY = caffe_entry()


@pytest.fixture
def prototxt(tmp_path: Path) -> Path:
    path = tmp_path / "deploy.prototxt"
    path.write_text(PROTOTXT)
    return path


@pytest.fixture
def caffemodel(tmp_path: Path) -> Path:
    return write_caffemodel(tmp_path / "trained.caffemodel", caffe_weights(3))


def _maps(folder: Path, caffemodel: Path, prototxt: Any, size: Tuple[int, int], engine: str = "torch") -> np.ndarray:
    manifest = ENTRY.manifest(folder / "net", "a test")
    builder = caffe.convert(caffemodel, ENTRY, prototxt)
    builder.check(manifest)
    builder.write(folder / "net", manifest)
    return np.concatenate(load(folder / "net", engine=engine).run(caffe_input(size)), 1)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize(("seed", "size"), RECORDED)
def test_the_maps_are_those_that_opencv_was_recorded_to_make(
    seed: int, size: Tuple[int, int], engine: str, prototxt: Path, tmp_path: Path
) -> None:
    pytest.importorskip(engine)
    model = write_caffemodel(tmp_path / "a.caffemodel", caffe_weights(seed))
    found = _maps(tmp_path, model, prototxt, size, engine)
    with np.load(OPENCV) as recorded:
        expected = recorded[f"{seed} {size[0]}x{size[1]}"]
    assert found.shape == expected.shape == (2, 57, size[0] // 8, size[1] // 8)
    assert np.abs(found - expected).max() <= TOLERANCE * np.ptp(expected)


@pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="this OpenCV reads no Caffe nets; 4 does")
@pytest.mark.parametrize(("seed", "size"), [*RECORDED, (11, (88, 24)), (12, (56, 56))])
def test_the_maps_are_those_that_opencv_makes(seed: int, size: Tuple[int, int], prototxt: Path, tmp_path: Path) -> None:
    expected = opencv_maps(tmp_path, seed, size)
    found = _maps(tmp_path, tmp_path / "net.caffemodel", prototxt, size)
    assert np.abs(found - expected).max() <= TOLERANCE * np.ptp(expected)
    if (seed, size) in RECORDED:
        with np.load(OPENCV) as recorded:
            np.testing.assert_allclose(recorded[f"{seed} {size[0]}x{size[1]}"], expected, atol=1e-4)


def test_an_encoded_definition_is_the_same(prototxt: Path, caffemodel: Path, tmp_path: Path) -> None:
    net = text_format.Parse(PROTOTXT, caffe_pb2.NetParameter())
    (tmp_path / "encoded").write_bytes(net.SerializeToString())
    nets = [caffe.convert(caffemodel, ENTRY, path).predict for path in (prototxt, tmp_path / "encoded")]
    assert nets[0] == nets[1]


def test_the_layers_may_stand_in_the_caffemodel(caffemodel: Path, prototxt: Path, tmp_path: Path) -> None:
    whole = write_caffemodel(tmp_path / "whole.caffemodel", caffe_weights(3), PROTOTXT)
    assert caffe.convert(whole, ENTRY).predict == caffe.convert(caffemodel, ENTRY, prototxt).predict


def test_batch_norm_and_scale_are_merged_when_the_net_runs(caffemodel: Path, prototxt: Path) -> None:
    builder = caffe.convert(caffemodel, ENTRY, prototxt)
    running = optimise(check_pair(builder.predict, builder.init, "image", ("net_output",)))
    kinds = [operator.type for operator in running.operators]
    assert kinds[:2] == ["Conv", "LeakyRelu"]
    assert (kinds.count("SpatialBN"), kinds.count("AffineChannel"), kinds.count("Copy")) == (0, 1, 0)


OLD = """
input: "image" input_dim: 1 input_dim: 3 input_dim: 16 input_dim: 16
layers { name: "c" type: CONVOLUTION bottom: "image" top: "c" blobs_lr: 1 blobs_lr: 2
  convolution_param { num_output: 57 kernel_size: 8 stride: 8 } }
layers { name: "r" type: RELU bottom: "c" top: "c" }
layers { name: "t" type: TANH bottom: "c" top: "net_output" }
layers { name: "loss" type: EUCLIDEAN_LOSS bottom: "net_output" bottom: "label" top: "loss" }
"""


def test_layers_of_2014(tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text(OLD)
    weights = {"c": [np.ones((57, 3, 8, 8), np.float32), np.ones(57, np.float32)]}
    net = caffe_pb2.NetParameter.FromString(write_caffemodel(tmp_path / "a.caffemodel", weights).read_bytes())
    bias = net.layer[0].blobs[1]
    bias.ClearField("shape")
    bias.num, bias.channels, bias.height, bias.width = 1, 1, 1, 57
    (tmp_path / "a.caffemodel").write_bytes(net.SerializeToString())
    builder = caffe.convert(tmp_path / "a.caffemodel", ENTRY, tmp_path / "old.prototxt")
    assert [operator.type for operator in builder.predict.op] == ["Conv", "Relu", "Tanh"]


def test_one_slope_may_have_no_dimension(prototxt: Path, tmp_path: Path) -> None:
    """As newer Caffe writes it."""
    weights = caffe_weights(3)
    weights["slope"] = [weights["slope"][0].reshape(())]
    model = write_caffemodel(tmp_path / "a.caffemodel", weights)
    slope = next(
        operator for operator in caffe.convert(model, ENTRY, prototxt).init.op if operator.output == ["slope_w"]
    )
    assert list(slope.arg[0].ints) == [1]


def test_a_layer_of_training_alone_is_left_out(caffemodel: Path, prototxt: Path) -> None:
    expected = caffe.convert(caffemodel, ENTRY, prototxt).predict
    rule = 'layer { name: "t" type: "ReLU" bottom: "mean" top: "mean" %s }\nlayer {\n  name: "near"'
    for words in ("include { phase: TRAIN }", "exclude { phase: TEST }"):
        prototxt.write_text(PROTOTXT.replace('layer {\n  name: "near"', rule % words))
        assert caffe.convert(caffemodel, ENTRY, prototxt).predict == expected
    prototxt.write_text(PROTOTXT.replace('layer {\n  name: "near"', rule % "include { phase: TEST }"))
    assert len(caffe.convert(caffemodel, ENTRY, prototxt).predict.op) == len(expected.op) + 1


def test_a_layer_may_work_on_the_images_in_place(prototxt: Path, tmp_path: Path) -> None:
    first = 'layer { name: "in" type: "Scale" bottom: "image" top: "image" }'
    prototxt.write_text(PROTOTXT.replace('layer {\n  name: "first"', f'{first}\nlayer {{\n  name: "first"'))
    scaled = {**caffe_weights(3), "in": [np.array([0.5, 1, 2], np.float32)]}
    model = write_caffemodel(tmp_path / "scaled.caffemodel", scaled)
    weights = caffe_weights(3)
    weights["first"][0] = weights["first"][0] * np.array([0.5, 1, 2], np.float32)[:, None, None]
    plain = write_caffemodel(tmp_path / "plain.caffemodel", weights)
    (tmp_path / "plain.prototxt").write_text(PROTOTXT)
    found = _maps(tmp_path / "a", model, prototxt, (64, 64))
    expected = _maps(tmp_path / "b", plain, tmp_path / "plain.prototxt", (64, 64))
    assert np.abs(found - expected).max() <= TOLERANCE * np.ptp(expected)


FIRST = 'layer { name: "norm" type'


def _layer(words: str, before: str = FIRST) -> Tuple[str, str]:
    """A layer more, on the way from the first to the second."""
    return before, f'layer {{ name: "more" bottom: "first" top: "first" {words} }}\n{before}'


#: What is replaced by what in the net by hand → what is said of it.
FAULTS = [
    (
        _layer('type: "Deconvolution"'),
        "the layer 'more' of type Deconvolution is not supported; supported are BatchNorm,",
    ),
    (_layer('type: "ReLU" relu_param { slope: 1 }'), r'\(line 14: Message type .* has no field named "slope"\)'),
    (_layer('type: "ReLU" relu_param { engine: GPU }'), "GPU"),
    (
        ('bottom: "norm" top: "down"', 'bottom: "maps" top: "down"'),
        "'down' .*needs blob 'maps', which is made by nothing",
    ),
    (
        ('bottom: "norm" top: "down"', 'bottom: "joined" top: "down"'),
        "'down' .*'joined', which is made only later or in a cycle",
    ),
    (('name: "down" type', 'name: "norm" type'), "'norm' of type Pooling has the name of another layer"),
    (('top: "also"', 'top: "squashed"'), "makes blob 'squashed' again"),
    (('top: "joined"', 'top: "maps_w"'), "needs blob 'joined', which is made by nothing"),
    (
        ('top: "net_output"', 'top: "elsewhere"'),
        "never makes the output blob 'net_output'; its last blobs are 'aside', 'elsewhere'",
    ),
    (('input: "image"', 'input: "data"'), "has the inputs 'data', and none called 'image'"),
    (("group: 2", "group: 5"), "has 5 groups, into which 12 and 12 channels do not fall"),
    (('type: "Dropout" bottom: "scale" top: "scale"', 'type: "Dropout" top: "scale"'), "'drop' .* has 0 bottoms"),
    (("group: 2", "group: 0"), "has 0 groups"),
    (("kernel_size: 3 stride: 2 pad: 1 engine", "kernel_size: 3 axis: 2 engine"), "along an axis that is not 1"),
    (
        ("kernel_size: 3 stride: 2 pad: 1", "kernel_size: [3, 3, 3] stride: 2 pad: 1"),
        "has 3 numbers as its kernel_size",
    ),
    (("pool: MAX kernel_size: 3", "pool: STOCHASTIC kernel_size: 3"), "draws at random"),
    (("pool: AVE kernel_size: 3 stride: 2", "pool: AVE kernel_size: 3 stride: 2 pad: 1"), "averages a padded map"),
    (('top: "joined"', 'top: "joined" concat_param { axis: 2 }'), "joins along an axis that is not the channels'"),
    (("operation: SUM", "operation: MAX"), "neither a sum nor a product of two"),
    (("operation: SUM", "operation: SUM coeff: 1 coeff: -1"), "weighs what it adds"),
    (("eps: 1e-3", "use_global_stats: false"), "takes the statistics of each batch"),
    (("bias_term: true", "axis: 0"), "does not scale each channel"),
    (('bottom: "one" bottom: "squashed" top: "sum"', 'bottom: "one" top: "sum"'), "has 1 bottoms and 1 tops"),
    (
        ('bottom: "one" bottom: "squashed" top: "sum"', 'bottom: "one" bottom: "first" top: "sum"'),
        "operator Sum making blob 'sum' from one .* that do not fit",
    ),
    (
        ('bottom: "near" bottom: "most"', 'bottom: "near" bottom: "pass"'),
        "operator Concat making blob 'joined' .*they must be equal",
    ),
    (("num_output: 57", "num_output: 56"), "2 misshapen: maps_w"),
    (
        ("kernel_h: 3 kernel_w: 1", "kernel_h: 30 kernel_w: 1"),
        r"misshapen: dilated_w \(12, 6, 3, 1\) instead of \(12, 6, 30, 1\)",
    ),
    (("kernel_h: 2 kernel_w: 2", "kernel_h: 0 kernel_w: 2"), "has the kernel 0x2; it needs at least 1x1"),
    (
        ("stride: 2 pad: 1 engine", "stride: 1 pad: 1 engine"),
        "makes its output 'net_output' in the shape .* promises 19 channels",
    ),
    (('name: "scale" type', 'name: "other" type'), "1 missing: other_w"),
    ((PROTOTXT, ""), "has no layers"),
    ((PROTOTXT, "layer {" * 100_000), "no Caffe net's definition that is understood here"),
    ((PROTOTXT, "\n\x7f\1"), "is truncated or not a Caffe net's definition"),
    ((PROTOTXT, "<html>404</html>"), "no Caffe net's definition that is understood here"),
    ((PROTOTXT, "# " + "x" * (1 << 21)), "larger than 2097152 bytes"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_a_fault_is_one_sentence_and_nothing_is_written(
    change: Tuple[str, str], message: str, prototxt: Path, caffemodel: Path, tmp_path: Path
) -> None:
    assert change[0] in PROTOTXT
    prototxt.write_text(PROTOTXT.replace(*change))
    with pytest.raises(ModelError, match=message) as caught:
        _maps(tmp_path, caffemodel, prototxt, (64, 64))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert not (tmp_path / "net").exists()


def test_weights_of_another_net(prototxt: Path, tmp_path: Path) -> None:
    weights = {**caffe_weights(3), "first": [np.ones((12, 1, 3, 3), np.float32), np.ones(12, np.float32)]}
    del weights["maps"]
    model = write_caffemodel(tmp_path / "a.caffemodel", weights)
    with pytest.raises(
        ModelError, match=r"does not hold the 12 blobs of by_hand: 2 missing: maps_w, maps_b; 1 misshapen: first_w"
    ):
        caffe.convert(model, ENTRY, prototxt)


def test_names_do_not_meet_those_of_parameters(prototxt: Path, caffemodel: Path) -> None:
    prototxt.write_text(PROTOTXT.replace('"squashed"', '"maps_w"'))
    with pytest.raises(ModelError, match=r"blobs that are called as parameters are here: 'maps_w'; rename them"):
        caffe.convert(caffemodel, ENTRY, prototxt)


def test_a_caffemodel_that_would_take_all_memory(tmp_path: Path) -> None:
    """3 bytes a layer, each of which takes a hundred times as many when it is read: its process is ended."""
    path = tmp_path / "a.caffemodel"
    path.write_bytes(b"\xa2\x06\x00" * 15_000_000)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ModelError, match=r"a\.caffemodel"):
        caffe.convert(path, ENTRY)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (1 << 18)  # KiB
    assert time.monotonic() - began < 120


def test_the_command_of_the_document(
    prototxt: Path, caffemodel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSE_MODELS_DIR", str(tmp_path / "models"))
    Path("mine.toml").write_text(example("docs/models.md", "toml", "[mine]"))
    arguments = shlex.split(example("docs/models.md", "sh", "--prototxt"))[3:]
    without = [argument for argument in arguments if argument not in ("--prototxt", prototxt.name)]
    refused = CliRunner().invoke(main, without)
    assert refused.exit_code == 1
    assert f"models.convert: {caffemodel.name} never makes the output blob 'net_output'" in refused.output
    assert not Path("models", "mine").exists()
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "models/mine: converted and verified (licence: Apache-2.0)" in done.output
    load(tmp_path / "models" / "mine")


def test_a_prototxt_says_nothing_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"x")
    refused = CliRunner().invoke(main, [str(tmp_path / "a.pth"), "--net", "cmu_coco", "--prototxt", "x"])
    assert "is no .caffemodel, so a prototxt says nothing about it" in refused.output


_PIECES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.text(max_size=12)), max_size=6)


@given(pieces=_PIECES)
def test_whatever_is_written_over_a_prototxt(tmp_path_factory: pytest.TempPathFactory, pieces: Any) -> None:
    """It is read, or refused as ModelError; any other error fails the test."""
    text = PROTOTXT
    for share, cut, piece in pieces:
        at = int(share * len(text))
        text = text[:at] + piece + text[at + cut :]
    path = tmp_path_factory.getbasetemp() / "fuzz.prototxt"
    path.write_text(text)
    with contextlib.suppress(ModelError):
        to_architecture(read_definition(path), "image", ("net_output",), "it")
