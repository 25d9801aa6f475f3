"""Lightweight OpenPose as data (Osokin, "Real-time 2D Multi-Person Pose Estimation on CPU: Lightweight OpenPose",
2018, section 4).

A MobileNet v1 whose last stride became a dilation makes the features; an initial stage makes 19 heatmaps and 38 part
affinity fields, and each refinement stage makes them anew. Parameters are called as in the authors' PyTorch
checkpoints.
"""

from __future__ import annotations

from typing import Any, Dict, Tuple

from models.architectures.architecture import Architecture

HEATMAPS, PAFS = 19, 38
#: Channels in all stages.
_WIDTH = 128
#: Of each depthwise block of the MobileNet: channels, stride and dilation.
_BLOCKS = (
    *((64, 1, 1), (128, 2, 1), (128, 1, 1), (256, 2, 1), (256, 1, 1), (512, 1, 1), (512, 1, 2)),
    *((512, 1, 1),) * 4,
)


def lightweight_openpose(stages: int = 1) -> Architecture:
    """The net with `stages` refinement stages; its outputs are ``refinement_stages.<i>.heatmaps.1.0`` and ``pafs``.

    A checkpoint may have more stages: those after the last are left out, as the authors' own code does.
    """
    net = Architecture("data", (".weight", ".bias"), spare="refinement_stages.")
    source = _normalised(net, net.conv("model.0.0", "data", 32, 3, stride=2, bias=False), "model.0.1")
    for number, (channels, stride, dilation) in enumerate(_BLOCKS, 1):
        name, width = f"model.{number}", net.channels[source]
        window: Dict[str, Any] = {"stride": stride, "pad": dilation, "dilation": dilation}
        made = net.conv(f"{name}.0", source, width, 3, group=width, bias=False, **window)
        source = _normalised(net, made, f"{name}.1")
        source = _normalised(net, net.conv(f"{name}.3", source, channels, 1, bias=False), f"{name}.4")
    features = _features(net, source)
    heatmaps, pafs = _initial(net, features)
    for stage in range(stages):
        name = f"refinement_stages.{stage}"
        source = net.concat(f"{name}.concat", [features, heatmaps, pafs])
        for block in range(5):
            source = _refined(net, source, f"{name}.trunk.{block}")
        heatmaps, pafs = _maps(net, source, name, _WIDTH)
    return net


def _features(net: Architecture, source: str) -> str:
    aligned = source = _conv(net, "cpm.align.0", source, 1)
    for number in range(3):
        for layer, kernel, group in ((0, 3, _WIDTH), (2, 1, 1)):
            name = f"cpm.trunk.{number}.{layer}"
            source = net.activation("Elu", net.conv(name, source, _WIDTH, kernel, group=group, bias=False))
    return _conv(net, "cpm.conv.0", net.activation("Sum", aligned, "cpm.sum", source), 3)


def _initial(net: Architecture, source: str) -> Tuple[str, str]:
    for number in range(3):
        source = _conv(net, f"initial_stage.trunk.{number}.0", source, 3)
    return _maps(net, source, "initial_stage", 512)


def _refined(net: Architecture, source: str, name: str) -> str:
    first = source = _conv(net, f"{name}.initial.0", source, 1)
    for number, dilation in ((0, 1), (1, 2)):
        made = net.conv(f"{name}.trunk.{number}.0", source, _WIDTH, 3, pad=dilation, dilation=dilation)
        source = _normalised(net, made, f"{name}.trunk.{number}.1")
    return net.activation("Sum", first, f"{name}.sum", source)


def _maps(net: Architecture, source: str, stage: str, width: int) -> Tuple[str, str]:
    """Append both heads of a stage; returns the blobs of heatmaps and PAFs."""
    heatmaps, pafs = (
        net.conv(f"{stage}.{kind}.1.0", _conv(net, f"{stage}.{kind}.0.0", source, 1, width), maps, 1)
        for kind, maps in (("heatmaps", HEATMAPS), ("pafs", PAFS))
    )
    return heatmaps, pafs


def _conv(net: Architecture, name: str, source: str, kernel: int, width: int = _WIDTH) -> str:
    """Append a convolution with a Relu."""
    return net.activation("Relu", net.conv(name, source, width, kernel))


def _normalised(net: Architecture, source: str, name: str) -> str:
    """Append a SpatialBN called `name` and a Relu, both in place."""
    kinds = ("weight", "bias", "running_mean", "running_var")
    parameters = [net.parameter(f"{name}.{kind}", net.channels[source]) for kind in kinds]
    net.activation("SpatialBN", source, "", *parameters, is_test=1, epsilon=1e-5, order="NCHW")
    return net.activation("Relu", source)
