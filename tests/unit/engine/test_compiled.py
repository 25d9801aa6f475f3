"""What POSE_COMPILE chooses computes the same, for the shapes that come often and for those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Tuple

import numpy as np
import pytest
import torch

from tests.support.nets import write_pose_net
from worker.engine import load, torch_compiled
from worker.engine.torch_compiled import CudaGraphs
from worker.errors import ModelError

FRAMES = np.random.default_rng(3).integers(0, 256, (2, 24, 40, 3), np.uint8)


def test_an_unknown_way(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no way 'faster' to compile a net; set POSE_COMPILE to off, graph"):
        load(write_pose_net(tmp_path / "net"), compile="faster")


def test_graphs_mean_nothing_on_a_cpu(tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "net")
    for ours, others in zip(load(directory, compile="graph")(FRAMES), load(directory)(FRAMES)):
        np.testing.assert_array_equal(ours, others)


class _Recorder:
    """Stands for CUDA's graphs: what the module does between begin and end is done again at each replay."""

    def __init__(self) -> None:
        self.replayed = 0
        self.work: Any = None

    def replay(self) -> None:
        self.replayed += 1
        self.work()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Tuple[CudaGraphs, List[_Recorder]]:
    """CudaGraphs of a module that doubles, on a CPU, with graphs of ours."""
    recorders: List[_Recorder] = []

    class _Stream:
        def __init__(self, *_: Any) -> None:
            pass

        def wait_stream(self, other: Any) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: Any) -> None:
            pass

    def module(batch: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        made = batch * 2
        if recorders:
            recorders[-1].work = lambda: torch.mul(batch, 2, out=made)
        return (made,)

    def recorder() -> _Recorder:
        recorders.append(_Recorder())
        return recorders[-1]

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", recorder)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: _Stream())
    monkeypatch.setattr(torch_compiled, "_MAX_GRAPHS", 2)
    return CudaGraphs(module), recorders


def test_a_graph_is_recorded_for_a_shape_that_comes_again(graphs: Tuple[CudaGraphs, List[_Recorder]]) -> None:
    modules, recorders = graphs
    for number in range(6):
        batch = torch.full((1, 3, 8, 8), float(number))
        (made,) = modules(batch)
        assert (made == 2 * number).all()
    assert len(recorders) == 1
    assert recorders[0].replayed == 4  # the third pass and all after it


def test_few_graphs_are_kept(graphs: Tuple[CudaGraphs, List[_Recorder]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compiled, "PATIENCE", 1)
    modules, recorders = graphs
    for side in (8, 16, 8, 24, 8, 16):
        batch = torch.ones(1, 3, side, side)
        assert (modules(batch)[0] == 2).all()
    assert len(recorders) == 4  # 16 was the least recently used when 24 came


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("mode", ["off", "graph"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.02), ("bf16", 0.05)])
def test_a_gpu_computes_what_the_cpu_does(thin_net: Path, mode: str, precision: str, tolerance: float) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 184, 248, 3), np.uint8)
    net, cpu = load(thin_net, device="cuda:0", precision=precision, compile=mode), load(thin_net)
    net.warm([(184, 248)])
    for count in (1, 2, 1, 2, 2, 2):
        for found, expected in zip(net(frames[:count]), cpu(frames[:count])):
            assert np.abs(found - expected).max() <= tolerance * np.ptp(expected)
