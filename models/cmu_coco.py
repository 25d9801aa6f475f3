"""The CMU COCO net as data: a VGG-19 front and six stages of two branches (Cao et al., "Realtime Multi-Person 2D Pose
Estimation using Part Affinity Fields", CVPR 2017, section 2.1; layer names as in its Caffe definition).

Branch L1 makes 38 part affinity fields, branch L2 makes 19 heatmaps; each later stage sees both and the features.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Tuple

import numpy as np

from models.netpair import NetPairBuilder

INPUT = "data"
PAFS, HEATMAPS = "Mconv7_stage6_L1", "Mconv7_stage6_L2"
FEATURES = "conv4_4_CPM"
STAGES = 6


class Layer(NamedTuple):
    """One layer, which makes the blob of its name.

    A ``Conv``: channels in and out, kernel size, and whether a Relu follows in place. A ``MaxPool``: the 2×2 maximum
    with stride 2. A ``Concat``: joins both branches' maps and the features.
    """

    kind: str
    name: str
    sources: Tuple[str, ...]
    channels_in: int = 0
    channels_out: int = 0
    kernel: int = 2
    relu: bool = False


def layers() -> List[Layer]:
    """Every layer of the net, in the order they run."""
    found: List[Layer] = []
    source, channels = INPUT, 3
    for block, widths in enumerate(([64] * 2, [128] * 2, [256] * 4, [512, 512, 256, 128]), 1):
        for number, width in enumerate(widths, 1):
            name = f"conv{block}_{number}" + ("_CPM" if (block, number) in ((4, 3), (4, 4)) else "")
            found.append(Layer("Conv", name, (source,), channels, width, 3, True))
            source, channels = name, width
        if block < 4:
            found.append(Layer("MaxPool", f"pool{block}" + ("" if block == 1 else "_stage1"), (source,)))
            source = found[-1].name
    ends = []
    for branch, maps in (("L1", 38), ("L2", 19)):
        found += _branch(FEATURES, 128, "conv5_{}_CPM_" + branch, [(128, 3)] * 3 + [(512, 1), (maps, 1)])
        ends.append(found[-1].name)
    for stage in range(2, STAGES + 1):
        joined = Layer("Concat", f"concat_stage{stage}", (*ends, FEATURES))
        found.append(joined)
        ends = []
        for branch, maps in (("L1", 38), ("L2", 19)):
            pattern = "Mconv{}_" + f"stage{stage}_{branch}"
            found += _branch(joined.name, 128 + 38 + 19, pattern, [(128, 7)] * 5 + [(128, 1), (maps, 1)])
            ends.append(found[-1].name)
    return found


def _branch(source: str, channels: int, pattern: str, shape: List[Tuple[int, int]]) -> List[Layer]:
    """Convolutions one after the other, (channels, kernel) each; the last makes the maps and has no Relu."""
    found: List[Layer] = []
    for number, (width, kernel) in enumerate(shape, 1):
        name = pattern.format(number)
        found.append(Layer("Conv", name, (source,), channels, width, kernel, number < len(shape)))
        source, channels = name, width
    return found


def parameter_shapes() -> Dict[str, Tuple[int, ...]]:
    """The 184 parameter blobs, ``<name>_w`` (out, in, kernel, kernel) and ``<name>_b`` (out), in order."""
    shapes: Dict[str, Tuple[int, ...]] = {}
    for layer in layers():
        if layer.kind == "Conv":
            shapes[f"{layer.name}_w"] = (layer.channels_out, layer.channels_in, layer.kernel, layer.kernel)
            shapes[f"{layer.name}_b"] = (layer.channels_out,)
    return shapes


def build(name: str, weights: Mapping[str, np.ndarray]) -> NetPairBuilder:
    """The net with `weights`, which must have the blobs and shapes of :func:`parameter_shapes`."""
    builder = NetPairBuilder(name, INPUT)
    for layer in layers():
        if layer.kind == "Conv":
            parameters = [builder.parameter(f"{layer.name}_{kind}", weights[f"{layer.name}_{kind}"]) for kind in "wb"]
            window = {"kernel": layer.kernel, "pad": layer.kernel // 2, "stride": 1}
            builder.add("Conv", [*layer.sources, *parameters], [layer.name], order="NCHW", **window)
            if layer.relu:
                builder.add("Relu", [layer.name], [layer.name])
        elif layer.kind == "MaxPool":
            builder.add("MaxPool", layer.sources, [layer.name], kernel=2, stride=2, order="NCHW")
        else:
            builder.add("Concat", layer.sources, [layer.name, f"_{layer.name}_dims"], axis=1)
    builder.predict.external_output.extend([HEATMAPS, PAFS])
    return builder
