"""Inputs on a canvas: what each gets is what it would get alone, but near its right edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.nets import pose_operators, pose_parameters, write_pose_net
from worker.device.canvas import Canvas
from worker.engine import load

PAD = 128


@pytest.mark.parametrize(
    ("step", "stride", "width", "expected"),
    [
        (1, 8, 488, 488),
        (64, 8, 488, 512),
        (64, 8, 512, 512),
        (64, 8, 520, 576),
        (64, 12, 204, 384),  # a multiple of both
    ],
)
def test_widths_are_rounded_up(step: int, stride: int, width: int, expected: int) -> None:
    assert Canvas(step).width(width, stride) == expected


def test_inputs_that_are_as_wide_already_are_not_copied() -> None:
    inputs = [np.zeros((1, 8, 64, 3), np.uint8), np.zeros((2, 8, 64, 3), np.uint8)]
    assert Canvas(64).join(inputs, 64, PAD) is inputs


def test_each_input_is_padded_on_its_right() -> None:
    inputs = [np.full((1, 8, 48, 3), 1, np.uint8), np.full((2, 8, 64, 3), 2, np.uint8)]
    (joined,) = Canvas(64).join(inputs, 64, PAD)
    assert joined.shape == (3, 8, 64, 3)
    assert (joined[0, :, :48] == 1).all()
    assert (joined[0, :, 48:] == PAD).all()
    assert (joined[1:] == 2).all()


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_maps_are_those_of_each_input_alone(engine: str, tmp_path: Path) -> None:
    """Within 1e-3 of their range, but for the one cell from which this net sees what lies beyond the right edge."""
    pytest.importorskip(engine)
    random = np.random.default_rng(4)
    layers = [*pose_operators(), ("Conv", ["y", "w2"], ["z"], {"kernel": 3, "pad": 1})]
    parameters = {**pose_parameters(), "w2": random.standard_normal((57, 57, 3, 3)).astype(np.float32)}
    folder = write_pose_net(tmp_path / "net", [*layers, ("Copy", ["z"], ["y"], {})], parameters)
    net = load(folder, engine=engine)
    inputs = [random.integers(0, 256, (count, 24, width, 3), np.uint8) for count, width in ((1, 40), (2, 64), (1, 48))]
    maps = [
        (np.full((len(one), 19, 3, one.shape[2] // 8), np.nan), np.full((len(one), 38, 3, one.shape[2] // 8), np.nan))
        for one in inputs
    ]
    net.fill(Canvas(64).join(inputs, 64, PAD), maps)
    for one, found in zip(inputs, maps):
        for ours, alone in zip(found, net(one)):
            inside = slice(None, None if one.shape[2] == 64 else -1)
            assert np.abs(ours - alone)[..., inside].max() <= 1e-3 * np.ptp(alone)
