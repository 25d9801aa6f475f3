"""The default engine computes what Caffe2 computes, from the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import numpy as np
import pytest

from tests.support.cases import BATCHES, GOLDEN, RANDOM, SIZES, TOLERANCE, batch, recorded, sampled
from worker.engine import load
from worker.engine.net import Net, map_shapes

NetDir = Callable[[str], Path]
RECORDED = ("mobilenet_thin", "operators", *RANDOM)
NETS = (*RECORDED, "by_hand")


@pytest.fixture(scope="module")
def engines(net_dir: NetDir) -> Callable[[str], Tuple[Net, Net]]:
    """A net by name in Caffe2 and in the default engine, loaded once."""
    loaded: Dict[str, Any] = {}

    def find(name: str) -> Tuple[Net, Net]:
        if name not in loaded:
            loaded[name] = tuple(load(net_dir(name), engine=engine) for engine in ("caffe2", "torch"))
        return loaded[name]

    return find


@pytest.mark.parametrize("count", BATCHES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETS)
def test_same_outputs(name: str, size: Tuple[int, int], count: int, engines: Callable[[str], Tuple[Net, Net]]) -> None:
    caffe2, ours = engines(name)
    x = batch(size, count, ours.manifest)
    for expected, found in zip(caffe2.run(x), ours.run(x)):
        assert expected.shape == (count, expected.shape[1], size[0] // 8, size[1] // 8)
        assert np.ptp(expected) > 1e-3  # signals have neither died nor exploded
        assert np.isfinite(expected).all()
        assert np.abs(expected - found).max() <= TOLERANCE * np.ptp(expected)


@pytest.mark.parametrize("name", NETS)
def test_same_outputs_from_frames(name: str, engines: Callable[[str], Tuple[Net, Net]]) -> None:
    frames = np.random.default_rng(2).integers(0, 256, (2, 40, 48, 3), np.uint8)
    caffe2, ours = engines(name)
    shapes = map_shapes(ours.manifest, 1, (40, 48))
    maps = [(np.empty(shapes[0], np.float16), np.empty(shapes[1], np.float16)) for _ in range(2)]
    caffe2.fill([frames[:1], frames[1:]], maps)
    for place, (expected, found) in enumerate(zip(caffe2(frames), ours(frames))):
        assert np.abs(expected - found).max() <= TOLERANCE * np.ptp(expected)
        np.testing.assert_allclose(np.concatenate([piece[place] for piece in maps]), expected, rtol=2e-3, atol=1e-2)


def test_the_recorded_outputs_are_caffe2s(engines: Callable[[str], Tuple[Net, Net]]) -> None:
    """What ``make test`` compares with is what this Caffe2 says."""
    with np.load(GOLDEN) as golden:
        for name in RECORDED:
            caffe2 = engines(name)[0]
            for size, count in recorded(name):
                for kind, maps in zip(("heatmaps", "pafs"), caffe2.run(batch(size, count, caffe2.manifest))):
                    values = golden[f"{name} {size[0]}x{size[1]} {count} {kind}"]
                    assert np.abs(values - sampled(maps)).max() <= 1e-5 * np.ptp(maps)
