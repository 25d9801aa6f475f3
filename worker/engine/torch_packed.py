"""Convolutions on a CPU by oneDNN: Relu in the same pass, and weights in its own memory order, which depends on the
input's size."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import replace
from typing import Any, Dict

import numpy as np
import torch
from torch import fx

from worker.engine.netdef import NetPair
from worker.engine.shapes import Shape, operator_shapes
from worker.engine.torch_operators import conv

#: What oneDNN packs weights in.
_PACKED = (torch.float32, torch.bfloat16, torch.float16)
#: Most memory for weights packed for several sizes, in bytes; one size is always kept.
_MAX_BYTES = 128 << 20
#: Passes of one size after which it gets weights of its own.
_PATIENCE = 3
#: How many sizes are counted.
_COUNTED = 1024


class PackedModules:
    """A module with weights packed for the input sizes that occur often.

    Weights packed for another size can be used too, but are then brought into the right order in every pass, which
    takes a fiftieth of the default net's time, and up to a fifth of the CMU net's.

    Args:
        module: of :func:`worker.engine.torch_graph.build_graph`.
        net: what the module was built from.
    """

    def __init__(self, module: fx.GraphModule, net: NetPair) -> None:
        weights = sum(values.nbytes for values in module.buffers())
        self._most = max(1, _MAX_BYTES // max(1, weights))
        self._latest = module
        self._net = _without_values(net)
        self._packed: OrderedDict[Shape, fx.GraphModule] = OrderedDict()
        self._seen: Counter[Shape] = Counter()

    def get(self, shape: Shape, *, often: bool = False) -> fx.GraphModule:
        """The module to run an input of `shape` (N, C, H, W); `often`: the size is known to occur often."""
        if shape not in self._packed:
            if len(self._seen) >= _COUNTED:
                self._seen.clear()
            self._seen[shape] += 1
            if self._packed and not often and self._seen[shape] < _PATIENCE:
                return self._latest
            self._packed[shape] = packed_for(self._latest, self._net, shape)
            if len(self._packed) > self._most:
                self._packed.popitem(last=False)
        self._packed.move_to_end(shape)
        self._latest = self._packed[shape]
        return self._latest


def packed_for(module: fx.GraphModule, net: NetPair, shape: Shape) -> fx.GraphModule:
    """A copy of `module` that has weights packed for an input of `shape` (N, C, H, W).

    Args:
        module: of :func:`worker.engine.torch_graph.build_graph`, or a packed one.
        net: what the module was built from.
    """
    shapes: Dict[str, Shape] = {net.input_blob: shape}
    made = operator_shapes(net, shape)
    shapes.update((operator.outputs[0], found) for operator, found in zip(net.operators, made))
    root, graph = torch.nn.Module(), fx.Graph()
    copies: Dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(module.graph, copies))
    for name, values in module.named_buffers():
        root.register_buffer(name, values, persistent=False)
    for node, copy in copies.items():
        if node.target is not conv:
            continue
        weight: Any = node.args[1]
        values = getattr(module, weight.target)
        if not can_pack(values.dtype):
            continue
        copy.kwargs = {**node.kwargs, "packed": True}
        copy.meta = dict(node.meta)
        setattr(root, weight.target, _packed(values, node.kwargs, shapes[node.meta["reads"]]))
    return fx.GraphModule(root, graph).eval()


def _packed(values: torch.Tensor, window: Dict[str, Any], shape: Shape) -> torch.Tensor:
    count, channels, height, width = shape
    top, left, bottom, right = window["extra"]
    padded = (count, channels, height + top + bottom, width + left + right)
    if values.is_mkldnn:  # packed for another size
        values = values.to_dense()
    pack: Any = torch.ops.mkldnn._reorder_convolution_weight
    return pack(values, window["padding"], window["stride"], window["dilation"], window["groups"], padded)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN is here and this CPU has instructions for `dtype`; without, PyTorch's own kernels are used."""
    if not torch.backends.mkldnn.is_available() or not _has_pointwise() or dtype not in _PACKED:
        return False
    return dtype == torch.float32 or _runs(dtype)


def _has_pointwise() -> bool:
    try:
        return bool(torch.ops.mkldnn._convolution_pointwise)
    except (AttributeError, RuntimeError):  # an older torch
        return False


def _runs(dtype: torch.dtype) -> bool:
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}[dtype]
    return bool(getattr(torch.ops.mkldnn, name)())


def _without_values(net: NetPair) -> NetPair:
    """`net` with parameters that have shapes and types, but whose floats are all one zero."""
    parameters = {
        blob: np.broadcast_to(np.zeros((), values.dtype), values.shape) if values.dtype.kind == "f" else values
        for blob, values in net.parameters.items()
    }
    return replace(net, parameters=parameters)
