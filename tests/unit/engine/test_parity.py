"""The converted default net against an independent runtime, OpenCV, on the graph that it was converted from."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import cv2
import numpy as np
import pytest

from models.catalog import find_entry
from tests.support import ROOT
from worker.engine import load
from worker.engine.manifest import sha256_of
from worker.engine.net import Net


@pytest.fixture(scope="module")
def original() -> cv2.dnn.Net:
    """The TensorFlow graph, which fetching the net leaves in the downloads folder, read by OpenCV."""
    file = find_entry("mobilenet_thin").files[0]
    path = ROOT / "models" / "downloads" / file.name
    if sha256_of(path) != file.sha256:
        pytest.skip(f"no {path}; remove models/mobilenet_thin and run: python -m models.fetch mobilenet_thin")
    return cv2.dnn.readNetFromTensorflow(str(path))


@pytest.fixture(scope="module")
def net(thin_net: Path) -> Net:
    return load(thin_net)


@pytest.mark.parametrize("photograph", ["bus.jpg", "zidane.jpg", "astronaut.png"])
# OpenCV 5 reads beyond the blob where a map is one pixel wide, so that 16 is the narrowest that can be compared.
@pytest.mark.parametrize("size", [(368, 432), (184, 248), (64, 64), (200, 16)])
def test_the_converted_net_computes_what_the_original_does(
    net: Net, original: cv2.dnn.Net, samples: Path, photograph: str, size: Tuple[int, int]
) -> None:
    height, width = size
    image = cv2.resize(cv2.imread(str(samples / photograph)), (width, height), interpolation=cv2.INTER_CUBIC)
    original.setInput(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32))
    expected = original.forward()
    heatmaps, pafs = net(image[None])
    assert heatmaps.shape == (1, 19, height // 8, width // 8)
    np.testing.assert_allclose(heatmaps, expected[:, :19], rtol=0, atol=1e-4)
    np.testing.assert_allclose(pafs, expected[:, 19:], rtol=0, atol=1e-4)
    if min(size) > 100:
        assert heatmaps[:, :18].max() > 0.2  # there are people: the comparison is not one of zeros


def test_frames_in_a_batch_do_not_touch_each_other(net: Net, samples: Path) -> None:
    photographs = [cv2.imread(str(samples / name)) for name in ("bus.jpg", "zidane.jpg", "astronaut.png")]
    frames = np.stack([cv2.resize(photograph, (160, 184)) for photograph in photographs])
    together = net(frames)
    for i, frame in enumerate(frames):
        for maps, alone in zip(together, net(frame[None])):
            np.testing.assert_allclose(maps[i : i + 1], alone, rtol=0, atol=1e-4)
