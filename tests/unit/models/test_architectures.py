"""The nets that are known by heart have the layers of their authors' definitions."""

from __future__ import annotations

from collections import Counter
from typing import Dict, List, Sequence, Tuple

import numpy as np
import pytest

from models.architectures import ARCHITECTURES
from worker.engine.proto import netdef_pb2

Shapes = Dict[str, Tuple[int, ...]]


def _net(name: str, outputs: Sequence[str]) -> Tuple[netdef_pb2.NetDef, Shapes]:
    """The net called `name`, and the shapes of its parameters."""
    architecture = ARCHITECTURES[name]()
    nothing = {blob: np.zeros((), np.float32) for blob in architecture.parameters}
    return architecture.build(name, nothing, outputs).predict, architecture.parameters


def _sources(net: netdef_pb2.NetDef, kind: str) -> Dict[str, List[str]]:
    return {operator.output[0]: list(operator.input) for operator in net.op if operator.type == kind}


def _elements(shapes: Shapes) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def test_body_25() -> None:
    net, shapes = _net("body_25", ["Mconv7_stage1_L1", "Mconv7_stage3_L2"])
    kinds = Counter(operator.type for operator in net.op)
    assert (kinds["Conv"], kinds["PRelu"], kinds["Relu"], kinds["MaxPool"]) == (114, 99, 9, 3)
    # four stages of PAFs, then two of heatmaps, five joins in each; and what a stage sees, but for the first
    joins = _sources(net, "Concat")
    assert len(joins) == 6 * 5 + 5
    assert joins["Mconv1_stage0_L2_concat"] == [f"Mconv1_stage0_L2_{number}" for number in range(3)]
    assert joins["concat_stage3_L2"] == ["conv4_4_CPM", "Mconv7_stage2_L2"]
    assert joins["concat_stage0_L1"] == ["conv4_4_CPM", "Mconv7_stage3_L2"]
    assert joins["concat_stage1_L1"] == ["conv4_4_CPM", "Mconv7_stage0_L1", "Mconv7_stage3_L2"]
    slopes = {blobs[1] for blobs in _sources(net, "PRelu").values()}
    assert {"prelu4_2_w", "prelu4_3_CPM_w", "prelu4_4_CPM_w", "Mprelu6_stage1_L1_w"} < slopes
    # widths: 96 and 256 in the first stage of each kind, 128 and 512 in the others
    assert shapes["Mconv1_stage0_L2_0_w"] == (96, 128, 3, 3)
    assert shapes["Mconv1_stage1_L2_0_w"] == (128, 128 + 52, 3, 3)
    assert shapes["Mconv2_stage1_L2_0_w"] == (128, 3 * 128, 3, 3)
    assert shapes["Mconv6_stage0_L1_w"] == (256, 3 * 96, 1, 1)
    assert shapes["Mconv1_stage1_L1_0_w"] == (128, 128 + 26 + 52, 3, 3)
    assert shapes["Mconv7_stage1_L1_w"] == (26, 512, 1, 1)
    assert shapes["Mconv7_stage3_L2_w"] == (52, 512, 1, 1)
    assert _elements(shapes) == 26_166_084


def test_mpi() -> None:
    net, shapes = _net("cmu_mpi", ["Mconv7_stage6_L2", "Mconv7_stage6_L1"])
    assert net.external_input[0] == "image"
    assert Counter(operator.type for operator in net.op) == {"Conv": 92, "Relu": 80, "MaxPool": 3, "Concat": 5}
    assert _sources(net, "Concat")["concat_stage4"] == ["Mconv7_stage3_L1", "Mconv7_stage3_L2", "conv4_4_CPM"]
    assert shapes["Mconv1_stage2_L1_w"] == (128, 128 + 28 + 16, 7, 7)


@pytest.mark.parametrize(("name", "maps"), [("cmu_hand", 22), ("cmu_face", 71)])
def test_hand_and_face(name: str, maps: int) -> None:
    net, shapes = _net(name, ["net_output"])
    assert Counter(operator.type for operator in net.op) == {"Conv": 52, "Relu": 46, "MaxPool": 3, "Concat": 5}
    assert _sources(net, "Conv")["net_output"] == ["Mconv6_stage6", "Mconv7_stage6_w", "Mconv7_stage6_b"]
    assert _sources(net, "Concat")["concat_stage2"] == ["conv6_2_CPM", "conv5_3_CPM"]
    assert shapes["conv5_3_CPM_w"] == (128, 512, 3, 3)
    assert shapes["conv6_1_CPM_w"] == (512, 128, 1, 1)
    assert shapes["Mconv1_stage2_w"] == (128, maps + 128, 7, 7)
    assert shapes["Mconv7_stage6_w"] == (maps, 128, 1, 1)
