"""What POSE_COMPILE chooses computes the same, for the shapes that come often and for those that do not."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, List, Tuple

import cv2
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

    def module(batch: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        made = batch * 2
        if recorders:
            recorders[-1].work = lambda: torch.mul(batch, 2, out=made)
        return (made,)

    def recorder() -> _Recorder:
        recorders.append(_Recorder())
        return recorders[-1]

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", recorder)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: contextlib.nullcontext())
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
    for side, recorded in ((8, 1), (16, 2), (8, 2), (24, 2), (24, 3), (16, 3), (8, 3), (24, 3)):
        batch = torch.ones(1, 3, side, side)
        assert (modules(batch)[0] == 2).all()
        # 24 replaces 16 when it has come twice, and 16 only once; 16 does not replace it back.
        assert len(recorders) == recorded


def test_shapes_that_come_in_turns_do_not_record_each_time(
    graphs: Tuple[CudaGraphs, List[_Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_compiled, "_MAX_GRAPHS", 4)
    modules, recorders = graphs
    for number in range(100):
        side = 8 * (number % 5 + 1)
        assert (modules(torch.ones(1, 3, side, side))[0] == 2).all()
    assert len(recorders) == 4
    assert sum(one.replayed for one in recorders) == 4 * 18  # all but the two passes before each recording


def test_a_shape_that_came_often_once_gives_way(
    graphs: Tuple[CudaGraphs, List[_Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_compiled, "_MEMORY", 16)
    modules, recorders = graphs
    for side, passes in ((8, 60), (16, 60), (24, 60)):
        for _ in range(passes):
            modules(torch.ones(1, 3, side, side))
    assert len(recorders) == 3
    assert recorders[2].replayed > 40


def test_a_shape_whose_graph_does_not_fit_runs_without_one(
    graphs: Tuple[CudaGraphs, List[_Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, recorders = graphs
    room, tried = [False], []

    def graph(*_: Any, **__: Any) -> Any:
        tried.append(1)
        if not room[0]:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch_compiled, "_MEMORY", 16)
    for _ in range(12):
        assert (modules(torch.ones(1, 3, 8, 8))[0] == 2).all()
    assert len(tried) == 1  # and not again at each pass
    room[0] = True
    for _ in range(12):
        assert (modules(torch.ones(1, 3, 8, 8))[0] == 2).all()
    assert len(tried) == 2
    assert recorders[-1].replayed > 0


#: Of the range of all maps: the root of the mean square of the difference, and its most. On the CPU, the same net has
#: 0.0008 and 0.027 in fp16, 0.005 and 0.09 in bf16.
TOLERANCES = {"fp32": (1e-5, 1e-4), "fp16": (0.003, 0.06), "bf16": (0.02, 0.2)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("mode", ["off", "graph"])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_gpu_computes_what_the_cpu_does(thin_net: Path, samples: Path, mode: str, precision: str) -> None:
    """On photographs: the PAFs of noise are so small that what half precision rounds off is much of them."""
    images = [cv2.imread(str(samples / name)) for name in ("bus.jpg", "zidane.jpg")]
    frames = np.stack([cv2.resize(image, (248, 184), interpolation=cv2.INTER_AREA) for image in images])
    net, cpu = load(thin_net, device="cuda:0", precision=precision, compile=mode), load(thin_net)
    net.warm([(184, 248)])
    for count in (1, 2, 1, 2, 2, 2):
        found, expected = (np.concatenate([maps.ravel() for maps in one(frames[:count])]) for one in (net, cpu))
        difference, (typical, most) = (found - expected) / np.ptp(expected), TOLERANCES[precision]
        assert np.sqrt(np.mean(difference**2)) <= typical
        assert np.abs(difference).max() <= most
