"""The default engine against what the genuine Caffe2 runtime (torch 1.10.2) was recorded to compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.engine.cases import GOLDEN, TOLERANCE, batch, recorded, sampled, write_cmu, write_operators
from worker.engine import load


def _compare(name: str, directory: Path) -> None:
    net = load(directory)
    with np.load(GOLDEN) as golden:
        for size, count in recorded(name):
            for kind, maps in zip(("heatmaps", "pafs"), net.run(batch(size, count, net.manifest))):
                expected = golden[f"{name} {size[0]}x{size[1]} {count} {kind}"]
                assert np.abs(sampled(maps) - expected).max() <= TOLERANCE * np.ptp(expected), (size, count, kind)


def test_the_default_net(thin_net: Path) -> None:
    _compare("mobilenet_thin", thin_net)


def test_a_net_of_all_operators(tmp_path: Path) -> None:
    _compare("operators", write_operators(tmp_path / "operators"))


def test_the_cmu_net(tmp_path: Path) -> None:
    _compare("cmu_coco", write_cmu(tmp_path / "cmu_coco"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_of_the_default_net(thin_net: Path, precision: str) -> None:
    """Its cost in accuracy, as docs/models.md states it."""
    net = load(thin_net, precision=precision)
    with np.load(GOLDEN) as golden:
        heatmaps, _ = net.run(batch((64, 64), 1, net.manifest))
        expected = golden["mobilenet_thin 64x64 1 heatmaps"]
        assert np.abs(sampled(heatmaps) - expected).max() <= 0.05 * np.ptp(expected)
