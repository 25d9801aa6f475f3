"""A checked net as a torch.fx GraphModule, whose generated code drops each blob after its last use."""

from __future__ import annotations

from typing import Any, Dict, Set, Tuple

import numpy as np
import torch
from torch import fx

from worker.engine.netdef import NetPair, Operator
from worker.engine.passes import relus_after_convolutions
from worker.engine.torch_fused import ConvRelu
from worker.engine.torch_operators import Call, call_for
from worker.errors import ModelError


def build_graph(net: NetPair, *, fuse: bool = False) -> fx.GraphModule:
    """Build the module: one input tensor in, a tuple of the net's output blobs out.

    Every blob is written once (:func:`worker.engine.passes.single_assignment`).

    Args:
        fuse: whether a convolution and the Relu that alone reads it become one kernel of cuDNN, on a GPU.

    Raises:
        ModelError: an argument has a value that is not supported; the message names the operator and its blob.
    """
    root, graph = torch.nn.Module(), fx.Graph()
    blobs: Dict[str, fx.Node] = {net.input_blob: graph.placeholder("data")}
    for number, (blob, values) in enumerate(net.parameters.items()):
        attribute = f"p{number}"  # blob names need not be identifiers
        root.register_buffer(attribute, _tensor(values), persistent=False)
        blobs[blob] = graph.get_attr(attribute)
    followers = relus_after_convolutions(net)
    fused = {relu.outputs[0] for relu in followers.values()}
    said: Set[str] = set()
    for number, operator in enumerate(net.operators):
        if operator.type == "Free" or operator.outputs[0] in fused:
            continue  # the generated code releases what is no longer needed by itself
        function, constants = _call(operator, net)
        blob = operator.outputs[0]
        tensors = tuple(blobs[name] for name in _tensors(operator))
        if blob in followers and fuse and constants["groups"] == 1:  # cuDNN has no such kernel for depthwise ones
            root.add_module(f"c{number}", ConvRelu(followers[blob].outputs[0], constants, said))
            result = graph.call_module(f"c{number}", tensors)
        elif blob in followers:
            result = graph.call_function(function, tensors, {**constants, "relu": True})
        else:
            result = graph.call_function(function, tensors, constants)
        blob = followers[blob].outputs[0] if blob in followers else blob
        # Further outputs (a Dropout's mask, a Concat's split sizes) serve training; using one is found by check_shapes.
        for spare in operator.outputs[1:]:
            blobs.pop(spare, None)
        blobs[blob] = result
    try:
        graph.output(tuple(blobs[blob] for blob in net.output_blobs))
    except KeyError as exc:
        raise ModelError(
            f"The net {net.name!r} has the output {exc.args[0]!r}, which inference does not make."
        ) from exc
    module = fx.GraphModule(root, graph)
    module.graph.eliminate_dead_code()
    return fx.GraphModule(module, module.graph).eval()  # without what dead code alone has read


def _tensors(operator: Operator) -> Tuple[str, ...]:
    """The inputs that the operator's function takes; a Reshape's shape is a constant by then."""
    return operator.inputs[:1] if operator.type == "Reshape" else operator.inputs


def _call(operator: Operator, net: NetPair) -> Call:
    try:
        return call_for(operator, net)
    except (ValueError, TypeError) as exc:
        raise operator.fault(net.name, f" that {exc}") from exc


def _tensor(values: np.ndarray) -> torch.Tensor:
    tensor: Any = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
