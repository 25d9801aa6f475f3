"""Writing a pair of NetDefs: whole or not at all, and as Caffe2 writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from models.catalog import find_entry
from models.netpair import NetPairBuilder
from worker.engine.manifest import Manifest, read_manifest, sha256_of
from worker.engine.netdef import arguments, read_net
from worker.engine.proto import netdef_pb2

FILES = ("predict_net.pb", "init_net.pb", "model.json")


def _builder(value: float = 1.0) -> NetPairBuilder:
    builder = NetPairBuilder("small", "data")
    weight = builder.parameter("w", np.full((2, 3, 1, 1), value, np.float32))
    builder.add("Conv", ["data", weight], ["y"], kernel=1, order="NCHW", ratio=0.5, pads=(0, 1, 2, 3))
    return builder


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return find_entry("cmu_coco").manifest(tmp_path / "small", "a test")


def _contents(directory: Path) -> Dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_is_written_reads_back(manifest: Manifest, tmp_path: Path) -> None:
    written = _builder().write(tmp_path / "small", manifest)
    assert sorted(_contents(tmp_path / "small")) == sorted(FILES)
    assert read_manifest(tmp_path / "small") == written
    written.verify()
    assert written.sha256 == sha256_of(tmp_path / "small" / "init_net.pb")
    predict = read_net(tmp_path / "small" / "predict_net.pb")
    assert (predict.name, list(predict.external_input)) == ("small", ["data", "w"])
    found = arguments(predict.op[0])
    assert found.pop("pads").tolist() == [0, 1, 2, 3]
    assert found == {"kernel": 1, "order": b"NCHW", "ratio": 0.5}
    fill = read_net(tmp_path / "small" / "init_net.pb").op[0]
    assert (fill.type, list(fill.output)) == ("GivenTensorFill", ["w"])
    np.testing.assert_array_equal(arguments(fill)["values"], np.ones(6, np.float32))


def test_floats_are_written_as_a_parser_of_one_by_one_reads_them() -> None:
    """Caffe2 declares the field unpacked; its own parser must find every value in it."""
    builder = NetPairBuilder("small", "data")
    values = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    builder.parameter("w", values)
    data = builder.init.SerializeToString()
    argument = netdef_pb2.NetDef.FromString(data).op[0].arg[1]
    assert argument.name == "values"
    np.testing.assert_array_equal(np.array(argument.floats, np.float32), values)


def test_the_same_net_is_the_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    for name in ("one", "two"):
        _builder().write(tmp_path / name, manifest)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_an_old_net_is_replaced_whole(manifest: Manifest, tmp_path: Path) -> None:
    _builder(1.0).write(tmp_path / "small", manifest)
    (tmp_path / "small" / "stale").write_text("from another time")
    _builder(2.0).write(tmp_path / "small", manifest)
    assert sorted(_contents(tmp_path / "small")) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_full_disk_leaves_the_old_net_and_nothing_else(
    fails_at: int, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _builder(1.0).write(tmp_path / "small", manifest)
    before = _contents(tmp_path / "small")
    calls = []

    def fsync(_: Any) -> None:
        calls.append(1)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        _builder(2.0).write(tmp_path / "small", manifest)
    assert _contents(tmp_path / "small") == before
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_file_in_the_way_is_left_alone(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("mine")
    with pytest.raises(NotADirectoryError):
        _builder().write(tmp_path / "small", manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_the_manifest_says_where_the_net_comes_from(manifest: Manifest, tmp_path: Path) -> None:
    _builder().write(tmp_path / "small", manifest.model_copy(update={"source": "pose_iter_440000.caffemodel"}))
    found = read_manifest(tmp_path / "small")
    assert found.source == "pose_iter_440000.caffemodel"
    assert "divides by 256" in found.notes
    assert (found.input.mean, found.input.scale) == ((128, 128, 128), 1 / 255)
