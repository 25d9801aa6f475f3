"""The CMU nets of OpenPose as data; layer names as in their Caffe definitions.

Those of bodies are of Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields" (CVPR 2017,
section 2.1): a VGG-19 front and six stages of two branches; L1 makes part affinity fields and L2 heatmaps, and each
later stage sees both and the features. Those of hands and faces are convolutional pose machines: one branch, which
makes heatmaps alone.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

from models.architectures.architecture import Architecture

STAGES = 6
#: Channels and kernel of each convolution of a stage but the last, which makes the maps.
_FIRST: Sequence[Tuple[int, int]] = [(128, 3)] * 3 + [(512, 1)]
_LATER: Sequence[Tuple[int, int]] = [(128, 7)] * 5 + [(128, 1)]


def body(input_blob: str, heatmaps: int, pafs: int) -> Architecture:
    """A net of bodies; its outputs are ``Mconv7_stage6_L2`` (heatmaps) and ``Mconv7_stage6_L1`` (PAFs)."""
    net = Architecture(input_blob)
    features = vgg(net, [[64] * 2, [128] * 2, [256] * 4, [512, 512, 256, 128]], ["4_3", "4_4"])
    ends: List[str] = []
    source = features
    for stage in range(1, STAGES + 1):
        if stage > 1:
            source = net.concat(f"concat_stage{stage}", [*ends, features])
        pattern = "conv5_{}_CPM_L{}" if stage == 1 else f"Mconv{{}}_stage{stage}_L{{}}"
        ends = [
            _branch(net, source, [pattern.format(number, branch) for number in range(1, 8)], stage, maps)
            for branch, maps in ((1, pafs), (2, heatmaps))
        ]
    return net


def part(heatmaps: int) -> Architecture:
    """A net of hands or faces; its output is ``net_output``."""
    net = Architecture("image")
    features = vgg(net, [[64] * 2, [128] * 2, [256] * 4, [512] * 4, [512, 512, 128]], ["5_3"])
    source = _branch(net, features, ["conv6_1_CPM", "conv6_2_CPM"], 0, heatmaps)
    for stage in range(2, STAGES + 1):
        names = [f"Mconv{number}_stage{stage}" for number in range(1, 8)]
        joined = net.concat(f"concat_stage{stage}", [source, features])
        source = _branch(net, joined, names, stage, heatmaps, "net_output" if stage == STAGES else "")
    return net


def vgg(net: Architecture, blocks: Sequence[Sequence[int]], own: Sequence[str], slopes: Sequence[str] = ()) -> str:
    """Append VGG's 3×3 convolutions with three maximums of stride 2 between the first blocks; returns the features.

    Args:
        blocks: the widths of each block's convolutions.
        own: numbers of the layers that are OpenPose's own, and so have another name.
        slopes: numbers of the layers that end in a PRelu instead of a Relu.
    """
    source = net.input_blob
    for block, widths in enumerate(blocks, 1):
        for number, width in enumerate(widths, 1):
            name = f"{block}_{number}" + ("_CPM" if f"{block}_{number}" in own else "")
            source = net.conv(f"conv{name}", source, width, 3)
            if f"{block}_{number}" in slopes:
                net.prelu(f"prelu{name}", source)
            else:
                net.activation("Relu", source)
        if block < 4:
            args = {"kernel": 2, "stride": 2, "order": "NCHW"}
            source = net.add("MaxPool", [source], f"pool{block}_stage1", net.channels[source], **args)
    return source


def _branch(net: Architecture, source: str, names: Sequence[str], stage: int, maps: int, output: str = "") -> str:
    """Append the convolutions of a branch, with a Relu after each but the last; returns the blob of its maps."""
    shape = {0: [(512, 1)], 1: _FIRST}.get(stage, _LATER)
    for name, (width, kernel) in zip(names, shape):
        source = net.activation("Relu", net.conv(name, source, width, kernel))
    return net.conv(names[len(shape)], source, maps, 1, output=output)
