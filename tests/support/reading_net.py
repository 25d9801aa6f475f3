"""A net that reads its maps from the image: any people of any skeleton, through real files and real engines.

Each cell of the maps is a block of 8×8 pixels, whose 192 values hold the cell's values, negative ones in places of
their own; one convolution of stride 8 reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Union

import numpy as np

from tests.support.nets import fills, netdef
from worker.engine.manifest import InputSpec, Manifest, OutputSpec, sha256_of
from worker.pose.skeleton import Skeleton

STRIDE = 8
#: A skeleton that nobody has thought of: five joints, four limbs, one of each pair on either side.
STAR: Dict[str, Any] = {
    "name": "star",
    "keypoints": ["middle", "left_point", "right_point", "top", "bottom"],
    "limbs": [
        {"start": 0, "end": 1, "paf": 2},
        {"start": 0, "end": 2, "paf": 0},
        {"start": 3, "end": 0, "paf": 6},
        {"start": 0, "end": 4, "paf": 4},
    ],
}


def paint(heatmaps: np.ndarray, pafs: np.ndarray) -> np.ndarray:
    """The image uint8 (8 h, 8 w, 3) that :func:`write_reading_net`'s net reads as these maps."""
    values = np.concatenate([heatmaps, np.maximum(pafs, 0), np.maximum(-pafs, 0)])
    _, height, width = values.shape
    blocks = np.zeros((STRIDE * STRIDE * 3, height, width), np.uint8)
    blocks[: len(values)] = np.round(255 * np.clip(values, 0, 1))
    blocks = blocks.reshape(3, STRIDE, STRIDE, height, width)  # as a convolution's weights have them
    return np.ascontiguousarray(blocks.transpose(3, 1, 4, 2, 0).reshape(height * STRIDE, width * STRIDE, 3))


def reading_weights(skeleton: Skeleton) -> np.ndarray:
    """The weights of the net's one convolution, (channels, 3, 8, 8); it has no bias."""
    parts, fields = len(skeleton.keypoints) + 1, skeleton.paf_channels
    weights = np.zeros((parts + fields, STRIDE * STRIDE * 3), np.float32)
    weights[np.arange(parts), np.arange(parts)] = 1 / 255
    for field in range(fields):
        weights[parts + field, [parts + field, parts + fields + field]] = 1 / 255, -1 / 255
    return weights.reshape(parts + fields, 3, STRIDE, STRIDE)


def write_reading_net(directory: Path, skeleton: Skeleton, stated: Union[str, Dict[str, Any]]) -> Path:
    """Write the net's three files; `stated` is the skeleton as model.json has it. Returns `directory`."""
    parts, fields = len(skeleton.keypoints) + 1, skeleton.paf_channels
    parameters = {"w": reading_weights(skeleton), "b": np.zeros(parts + fields, np.float32)}
    directory.mkdir(parents=True, exist_ok=True)
    predict = netdef([("Conv", ["x", "w", "b"], ["y"], {"kernel": STRIDE, "stride": STRIDE})])
    (directory / "predict_net.pb").write_bytes(predict.SerializeToString())
    (directory / "init_net.pb").write_bytes(fills(parameters).SerializeToString())
    manifest = Manifest(
        name=directory.name,
        licence="none",
        source="a test",
        predict_sha256=sha256_of(directory / "predict_net.pb"),
        sha256=sha256_of(directory / "init_net.pb"),
        input=InputSpec(blob="x", channel_order="BGR", mean=(0, 0, 0), scale=1.0, stride=STRIDE, pad_value=0),
        heatmaps=OutputSpec(blob="y", start=0, stop=parts),
        pafs=OutputSpec(blob="y", start=parts, stop=parts + fields) if fields else None,
        skeleton=stated,
        directory=directory,
    )
    (directory / "model.json").write_text(manifest.to_json())
    return directory
