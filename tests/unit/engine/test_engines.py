"""The engines above the operators: normalisation, batches, where maps are written, what it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
import pytest
import torch

from tests.support import by_hand
from tests.support.nets import pose_parameters, write_pose_net
from worker.engine import load
from worker.errors import DeviceOutOfMemory

FRAMES = np.random.default_rng(1).integers(0, 256, (3, 24, 16, 3), np.uint8)


def _expected(frames: np.ndarray, mean: Any = (0, 0, 0), scale: float = 1.0, rgb: bool = False) -> np.ndarray:
    pixels = frames[..., ::-1] if rgb else frames
    x = (pixels.transpose(0, 3, 1, 2) - np.reshape(mean, (3, 1, 1))) * scale
    parameters = pose_parameters()
    return by_hand.conv(x, parameters["w"], parameters["b"], stride=(8, 8))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, {}),
        ({"mean": (128.0, 128.0, 128.0), "scale": 1 / 255}, {"mean": (128, 128, 128), "scale": 1 / 255}),
        # the means are in the net's channel order
        (
            {"channel_order": "RGB", "mean": (10.0, 20.0, 30.0), "scale": 0.5},
            {"rgb": True, "mean": (10, 20, 30), "scale": 0.5},
        ),
    ],
)
def test_frames_are_normalised_as_the_manifest_says(
    spec: Dict[str, Any], words: Dict[str, Any], tmp_path: Path, engine: str
) -> None:
    heatmaps, pafs = load(write_pose_net(tmp_path / "small", **spec), engine=engine)(FRAMES)
    expected = _expected(FRAMES, **words)
    assert (heatmaps.dtype, pafs.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(heatmaps, expected[:, :19], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(pafs, expected[:, 19:], rtol=1e-4, atol=1e-3)


def test_run_takes_what_is_normalised_already(tmp_path: Path, engine: str) -> None:
    net = load(write_pose_net(tmp_path / "small", mean=(128.0, 128.0, 128.0), scale=1 / 255), engine=engine)
    batch = ((FRAMES.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 255).astype(np.float32)
    for given in (batch, np.asfortranarray(batch)):
        for ours, others in zip(net.run(given), net(FRAMES)):
            np.testing.assert_allclose(ours, others, rtol=1e-4, atol=1e-5)


def test_fill_writes_pieces_where_they_are_wanted(tmp_path: Path, engine: str) -> None:
    net = load(write_pose_net(tmp_path / "small"), engine=engine)
    expected = net(FRAMES)
    for dtype, tolerance in ((np.float32, 1e-5), (np.float16, 2e-3)):
        maps = [
            (np.full((n, 19, 3, 2), np.nan, dtype), np.full((n, 38, 3, 2), np.nan, dtype))  # rows of any memory
            for n in (1, 2)
        ]
        net.fill([FRAMES[:1], FRAMES[1:]], maps)
        for i in range(2):
            found = np.concatenate([piece[i] for piece in maps])
            np.testing.assert_allclose(found, expected[i], rtol=tolerance, atol=tolerance)


def test_frames_of_a_channel_may_be_read_only(tmp_path: Path, engine: str) -> None:
    """Frames lie in shared memory that the engine must not write to."""
    frames = FRAMES.copy()
    frames.flags.writeable = False
    load(write_pose_net(tmp_path / "small"), engine=engine)(frames)


@pytest.mark.parametrize("shape", [(1, 20, 16, 3), (1, 16, 4, 3), (1, 0, 16, 3)])
def test_sides_must_be_multiples_of_the_stride(shape: Any, tmp_path: Path, engine: str) -> None:
    net = load(write_pose_net(tmp_path / "small"), engine=engine)
    with pytest.raises(ValueError, match="multiples of 8"):
        net(np.zeros(shape, np.uint8))


def test_warm_rounds_up_and_threads_are_set(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        net = load(write_pose_net(tmp_path / "small"), threads=1)
        assert torch.get_num_threads() == 1
        net.warm([(20, 30), (8, 8)])
        net.close()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("fits", "expected"), [(3, [3, 3, 2, 2, 1, 1]), (2, [3, 2, 2, 1, 1])])
def test_warm_runs_each_batch_that_fits_the_largest_first(
    fits: int, expected: List[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, counts = load(write_pose_net(tmp_path / "small")), []

    def fill(inputs: Sequence[np.ndarray], maps: Any) -> None:
        counts.append(len(inputs[0]))
        if len(inputs[0]) > fits:
            raise DeviceOutOfMemory("full")

    monkeypatch.setattr(net, "fill", fill)
    monkeypatch.setattr(net, "warm_passes", 2)
    net.warm([(16, 16)], 3)
    assert counts == expected
    fits = 0
    with pytest.raises(DeviceOutOfMemory):
        net.warm([(16, 16)], 3)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("fp16", 0.01)])
def test_lower_precisions_stay_near(precision: str, tolerance: float, tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "small", mean=(128.0, 128.0, 128.0), scale=1 / 255)
    net = load(directory, precision=precision)
    if net.precision != precision:
        pytest.skip(f"this CPU has no {precision}")
    exact, near = load(directory)(FRAMES), net(FRAMES)
    for ours, others in zip(near, exact):
        assert ours.dtype == np.float32
        assert np.abs(ours - others).max() < tolerance


def test_the_null_net_keeps_the_contract(tmp_path: Path) -> None:
    heatmaps, pafs = load(write_pose_net(tmp_path / "small"), engine="null")(FRAMES)
    assert (heatmaps.shape, pafs.shape) == ((3, 19, 3, 2), (3, 38, 3, 2))
    assert not heatmaps.any()


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_threads_do_not_wait_busily_unless_told_to(
    given: Dict[str, str], expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    load(write_pose_net(tmp_path / "small"), engine="null")
    assert os.environ.get("GOMP_SPINCOUNT") == expected
