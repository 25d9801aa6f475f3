"""The engines against what the genuine Caffe2 runtime (torch 1.10.2) was recorded to compute."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import torch

from tests.support.cases import GOLDEN, RANDOM, TOLERANCE, batch, recorded, sampled, write_operators
from worker.engine import load, torch_engine
from worker.engine.manifest import read_manifest
from worker.engine.netdef import read_pair
from worker.engine.passes import optimise
from worker.engine.torch_graph import build_graph


def _compare(name: str, directory: Path, engine: str) -> None:
    net = load(directory, engine=engine)
    with np.load(GOLDEN) as golden:
        for size, count in recorded(name):
            for kind, maps in zip(("heatmaps", "pafs"), net.run(batch(size, count, net.manifest))):
                expected = golden[f"{name} {size[0]}x{size[1]} {count} {kind}"]
                assert np.abs(sampled(maps) - expected).max() <= TOLERANCE * np.ptp(expected), (size, count, kind)


def test_the_default_net(thin_net: Path, engine: str) -> None:
    _compare("mobilenet_thin", thin_net, engine)


def test_a_net_of_all_operators(tmp_path: Path, engine: str) -> None:
    _compare("operators", write_operators(tmp_path / "operators"), engine)


@pytest.mark.parametrize("name", RANDOM)
def test_nets_of_random_weights(name: str, engine: str, random_net: Callable[[str], Path]) -> None:
    _compare(name, random_net(name), engine)


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="this torch has no such convolutions on a CPU")
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_lower_precision_of_the_default_net(thin_net: Path, precision: torch.dtype) -> None:
    """Signals survive it; docs/models.md states what it costs on photographs."""
    manifest = read_manifest(thin_net)
    module = build_graph(optimise(read_pair(manifest))).to(precision)
    with np.load(GOLDEN) as golden, torch.inference_mode():
        maps = module(torch.from_numpy(batch((40, 56), 1, manifest)).to(precision))[0].float().numpy()
        expected = golden["mobilenet_thin 40x56 1 heatmaps"]
        assert np.abs(sampled(maps[:, :19]) - expected).max() <= 0.05 * np.ptp(expected)


def test_a_precision_that_the_cpu_lacks_runs_in_fp32(
    thin_net: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch_engine, "_cpu_computes", lambda precision: False)
    net = load(thin_net, precision="bf16")
    assert net.precision == "fp32"
    assert caplog.messages == ["This CPU has no instructions for bf16; mobilenet_thin runs in fp32."]
