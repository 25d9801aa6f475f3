"""Half precision on a CPU without instructions for it: what is computed is what a machine with them computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.cases import write_operators
from tests.support.nets import checked, evaluate, write_pose_net
from worker.engine import load, torch_packed
from worker.engine.manifest import read_manifest
from worker.engine.netdef import read_pair
from worker.engine.passes import optimise
from worker.engine.torch_graph import build_graph
from worker.engine.torch_rounded import rounded_module

#: Half the distance between neighbours of a number, as a share of it.
ROUNDING = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="this torch has no such convolutions on a CPU")
@pytest.mark.parametrize("dtype", ROUNDING)
def test_every_blob_is_rounded_and_every_sum_is_not(dtype: torch.dtype, tmp_path: Path) -> None:
    """Beside PyTorch's own, slow kernels of that precision, whose sums are in fp32 too."""
    net = optimise(read_pair(read_manifest(write_operators(tmp_path / "net"))))
    plain = build_graph(net)
    x = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 3, 40, 56)).astype(np.float32))
    with torch.inference_mode():
        exact = plain(x)[0]
        emulated = rounded_module(plain, dtype)(x)[0]
        real = build_graph(net).to(dtype)(x.to(dtype))[0].float()
    assert emulated.dtype == torch.float32
    assert torch.equal(emulated, emulated.to(dtype).float())
    scale = float(exact.max() - exact.min())
    # A sum in another order may round to the neighbour, and what follows from that is carried on.
    assert float((emulated - real).abs().max()) <= 16 * ROUNDING[dtype] * scale
    assert float((emulated - real).square().mean().sqrt()) < float((exact - real).square().mean().sqrt())


def test_what_is_beyond_the_range_is_infinite() -> None:
    operators = [("Sum", ["x", "x"], ["y"], {})]
    x = np.array([[[[300.0, 40000.0, 1.0]]]], np.float32)
    assert evaluate(operators, x)["y"].max() == 80000
    found = rounded_module(build_graph(checked(operators)), torch.float16)(torch.from_numpy(x))[0]
    assert found.flatten().tolist() == [600.0, float("inf"), 2.0]


def test_it_is_done_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_packed, "_runs", lambda dtype: False)
    directory = write_pose_net(tmp_path / "net")
    frames = np.random.default_rng(1).integers(0, 256, (1, 24, 16, 3), np.uint8)
    exact, fallen_back, emulated = (
        load(directory, precision=precision, emulate=emulate)
        for precision, emulate in (("fp32", False), ("bf16", False), ("bf16", True))
    )
    assert (fallen_back.precision, emulated.precision) == ("fp32", "bf16")
    np.testing.assert_array_equal(fallen_back(frames)[1], exact(frames)[1])
    difference = np.abs(emulated(frames)[1] - exact(frames)[1]).max() / np.ptp(exact(frames)[1])
    assert 1e-4 < difference < 1e-2
