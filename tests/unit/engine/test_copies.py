"""What is copied to a GPU and back, played on a CPU: the same maps, written when they are waited for, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
import torch

from tests.support.nets import write_pose_net
from worker.engine import Maps, Net, load, torch_engine
from worker.engine.net import empty_maps
from worker.engine.torch_copies import Staged
from worker.errors import DeviceLost

FRAMES = np.random.default_rng(8).integers(0, 256, (5, 24, 40, 3), np.uint8)


class _Event:
    """Stands for a GPU's; while `says` is something, the device has broken before it."""

    says = ""

    def record(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        if self.says:
            raise RuntimeError(self.says)


@pytest.fixture
def plain(tmp_path: Path) -> Net:
    return load(write_pose_net(tmp_path / "net"))


@pytest.fixture
def staged(plain: Net, monkeypatch: pytest.MonkeyPatch) -> Net:
    """The same net, which copies as on a GPU."""
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch_engine, "Direct", lambda: Staged("cpu"))
    return load(plain.manifest.directory)


def _unwritten(net: Net, *counts: int) -> List[Maps]:
    maps = [empty_maps(net.manifest, count, (24, 40)) for count in counts]
    for array in sum(maps, ()):
        array[...] = np.nan
    return maps


def _check(net: Net, frames: np.ndarray, maps: List[Maps]) -> None:
    first = 0
    for pair in maps:
        for found, expected in zip(pair, net(frames[first : first + len(pair[0])])):
            np.testing.assert_array_equal(found, expected)
        first += len(pair[0])


def test_the_maps_of_pieces_are_those_of_a_net_on_the_cpu(plain: Net, staged: Net) -> None:
    maps = _unwritten(staged, 2, 1)
    staged.fill([FRAMES[:1], FRAMES[1:3]], maps)
    _check(plain, FRAMES, maps)
    for found, expected in zip(staged(FRAMES), plain(FRAMES)):
        np.testing.assert_array_equal(found, expected)


def test_maps_narrower_than_the_pass_and_in_half_precision(plain: Net, staged: Net) -> None:
    (heatmaps, pafs), whole = _unwritten(staged, 2)[0], plain(FRAMES[:2])
    narrow = heatmaps[..., :4].astype(np.float16), pafs[..., :4].astype(np.float16)
    staged.fill([FRAMES[:2]], [narrow])
    for found, expected in zip(narrow, whole):
        np.testing.assert_array_equal(found, expected[..., :4].astype(np.float16))


def test_passes_launched_together_are_written_when_each_is_waited_for(plain: Net, staged: Net) -> None:
    """Though each leaves what it makes where the next makes it, as a CUDA graph does."""
    made: List[torch.Tensor] = []
    module: Any = staged.module  # type: ignore[attr-defined]

    def graph(batch: torch.Tensor) -> Any:
        (new,) = module(batch)
        made[:] = made or [new.clone()]
        made[0].copy_(new)
        return (made[0],)

    staged.module = graph  # type: ignore[attr-defined]
    first, second = _unwritten(staged, 2), _unwritten(staged, 1, 1)
    waits = [staged.launch([FRAMES[:2]], first), staged.launch([FRAMES[2:3], FRAMES[3:4]], second)]
    assert all(np.isnan(array).all() for maps in (*first, *second) for array in maps)
    waits[1]()
    _check(plain, FRAMES[2:], second)
    assert all(np.isnan(array).all() for maps in first for array in maps)
    waits[0]()
    _check(plain, FRAMES, first)


def test_a_device_that_breaks_meanwhile_is_told_by_the_wait(staged: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    staged.device = "cuda:0"  # errors of a CPU are no device's
    monkeypatch.setattr(_Event, "says", "CUDA error: an illegal memory access was encountered")
    wait = staged.launch([FRAMES[:1]], _unwritten(staged, 1))
    with pytest.raises(DeviceLost, match="cuda:0 does not work any more"):
        wait()


def test_where_no_memory_can_be_pinned_copies_go_on_and_the_log_says_so_once(
    plain: Net, staged: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, empty = [], torch.empty

    def unpinned(*arguments: Any, pin_memory: bool = False, **named: Any) -> torch.Tensor:
        if pin_memory:
            asked.append(1)
            raise RuntimeError("CUDA error: out of memory\nmore")
        return empty(*arguments, **named)

    monkeypatch.setattr(torch, "empty", unpinned)
    for _ in range(2):
        maps = _unwritten(staged, 5)
        staged.fill([FRAMES], maps)
        _check(plain, FRAMES, maps)
    assert len(asked) == 1
    assert caplog.messages == [
        "No memory can be pinned (CUDA error: out of memory); copies to and from cpu take longer."
    ]


def test_pinned_memory_is_what_is_copied_through(
    plain: Net, staged: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pinned, empty = [], torch.empty

    def pin(*arguments: Any, pin_memory: bool = False, **named: Any) -> torch.Tensor:
        made = empty(*arguments, **named)
        if pin_memory:
            pinned.append(made.numpy().nbytes)
        return made

    monkeypatch.setattr(torch, "empty", pin)
    maps = _unwritten(staged, 3)
    staged.fill([FRAMES[:1], FRAMES[1:3]], maps)
    _check(plain, FRAMES, maps)
    assert pinned == [FRAMES[:3].nbytes, sum(array.nbytes for array in maps[0])]  # once there, and once back
    assert not caplog.messages


def test_a_net_on_a_cpu_has_done_a_pass_when_it_is_launched(plain: Net) -> None:
    maps = _unwritten(plain, 5)
    wait = plain.launch([FRAMES], maps)
    _check(plain, FRAMES, maps)
    wait()
    assert not plain.overlaps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("mode", ["off", "graph"])
def test_passes_launched_together_on_a_gpu_are_those_alone(thin_net: Path, mode: str) -> None:
    net = load(thin_net, device="cuda:0", precision="fp16", compile=mode)
    net.warm([(184, 248)], 2)
    batches = np.random.default_rng(9).integers(0, 256, (6, 2, 184, 248, 3), np.uint8)
    maps = [empty_maps(net.manifest, 2, (184, 248)) for _ in batches]
    waits = [net.launch([batch], [pair]) for batch, pair in zip(batches, maps)]
    for wait in reversed(waits):
        wait()
    for batch, pair in zip(batches, maps):
        for found, expected in zip(pair, net(batch)):
            assert np.abs(found - expected).max() <= 1e-3 * np.ptp(expected)
