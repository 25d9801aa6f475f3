"""OpenPose's BODY_25 net as data (Cao et al., "OpenPose: Realtime Multi-Person 2D Pose Estimation using Part Affinity
Fields", TPAMI 2019, section 3.2; layer names as in its Caffe definition).

Ten layers of VGG-19 and two of its own make the features. Four stages make 52 part affinity fields, one after the
other; then two stages make 26 heatmaps, and see the last fields. Every stage has five blocks of three 3×3 convolutions,
whose outputs are joined, and two 1×1 convolutions.
"""

from __future__ import annotations

from typing import Sequence

from models.architectures.architecture import Architecture
from models.architectures.openpose import vgg

HEATMAPS, PAFS = 26, 52


def body_25() -> Architecture:
    """The net; its outputs are ``Mconv7_stage1_L1`` (heatmaps) and ``Mconv7_stage3_L2`` (PAFs)."""
    net = Architecture("image")
    own = ["4_3", "4_4"]
    features = vgg(net, [[64] * 2, [128] * 2, [256] * 4, [512, 512, 256, 128]], own, ["4_2", *own])
    pafs = _stage(net, [features], "stage0_L2", PAFS)
    for stage in (1, 2, 3):
        pafs = _stage(net, [features, pafs], f"stage{stage}_L2", PAFS)
    heatmaps = _stage(net, [features, pafs], "stage0_L1", HEATMAPS)
    _stage(net, [features, heatmaps, pafs], "stage1_L1", HEATMAPS)
    return net


def _stage(net: Architecture, sources: Sequence[str], name: str, maps: int) -> str:
    """Append a stage that sees the `sources`; returns the blob of its maps. The first one of each kind is thinner."""
    width, last = (96, 256) if name.startswith("stage0") else (128, 512)
    source = net.concat(f"concat_{name}", sources) if len(sources) > 1 else sources[0]
    for block in range(1, 6):
        joined = []
        for number in range(3):
            source = net.conv(f"Mconv{block}_{name}_{number}", source, width, 3)
            net.prelu(f"Mprelu{block}_{name}_{number}", source)
            joined.append(source)
        source = net.concat(f"Mconv{block}_{name}_concat", joined)
    source = net.conv(f"Mconv6_{name}", source, last, 1)
    net.prelu(f"Mprelu6_{name}", source)
    return net.conv(f"Mconv7_{name}", source, maps, 1)
