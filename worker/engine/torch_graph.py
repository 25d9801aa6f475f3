"""A checked net as a torch.fx GraphModule, whose generated code drops each blob after its last use."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import numpy as np
import torch
from torch import fx

from worker.engine.netdef import NetPair, Operator
from worker.engine.torch_operators import Call, call_for
from worker.errors import ModelError

#: Operators whose result depends on one fixed input size, which is not known at load.
_SIZED = {"FC", "Reshape"}


def build_graph(net: NetPair) -> fx.GraphModule:
    """Build the module: one input tensor in, a tuple of the net's output blobs out.

    Raises:
        ModelError: an argument has a value that is not supported; the message names the operator and its blob.
    """
    root, graph = torch.nn.Module(), fx.Graph()
    blobs: Dict[str, fx.Node] = {net.input_blob: graph.placeholder("data")}
    for number, (blob, values) in enumerate(net.parameters.items()):
        attribute = f"p{number}"  # blob names need not be identifiers
        root.register_buffer(attribute, _tensor(values), persistent=False)
        blobs[blob] = graph.get_attr(attribute)
    for operator in net.operators:
        if operator.type == "Free":
            continue  # the generated code releases what is no longer needed by itself
        function, constants = _call(operator, net.name)
        result = graph.call_function(function, tuple(blobs[name] for name in operator.inputs), constants)
        # Further outputs (a Dropout's mask, a Concat's split sizes) serve training; using one is found by check_shapes.
        for spare in operator.outputs[1:]:
            blobs.pop(spare, None)
        blobs[operator.outputs[0]] = result
    try:
        graph.output(tuple(blobs[blob] for blob in net.output_blobs))
    except KeyError as exc:
        raise ModelError(
            f"The net {net.name!r} has the output {exc.args[0]!r}, which inference does not make."
        ) from exc
    graph.eliminate_dead_code()
    return fx.GraphModule(root, graph).eval()


def check_shapes(net: NetPair, height: int, width: int) -> Tuple[Tuple[int, ...], ...]:
    """Run the net on shapes alone.

    Returns:
        The shapes of the output blobs for one input image of `height` by `width`; empty if the net has operators
        that admit only one input size.

    Raises:
        ModelError: parameters and blobs do not fit together; the message names the operator, its blob and the shapes.
    """
    if any(operator.type in _SIZED for operator in net.operators):
        return ()
    blobs = {name: torch.empty(values.shape, device="meta") for name, values in net.parameters.items()}
    blobs[net.input_blob] = torch.empty((1, 3, height, width), device="meta")
    for operator in net.operators:
        if operator.type == "Free":
            continue
        function, constants = _call(operator, net.name)
        inputs = [blobs[name] for name in operator.inputs]
        try:
            blobs[operator.outputs[0]] = function(*inputs, **constants)
        except (RuntimeError, ValueError, IndexError, TypeError) as exc:
            shapes = ", ".join(f"{name} {tuple(blobs[name].shape)}" for name in operator.inputs)
            reason = str(exc).splitlines()[0]
            raise ModelError(
                f"The net {net.name!r} has an {operator.title} from {shapes} that do not fit: {reason}."
            ) from exc
    return tuple(tuple(blobs[blob].shape) for blob in net.output_blobs)


def _call(operator: Operator, name: str) -> Call:
    try:
        return call_for(operator)
    except (ValueError, TypeError) as exc:
        raise ModelError(f"The net {name!r} has an {operator.title} that {exc}.") from exc


def _tensor(values: np.ndarray) -> torch.Tensor:
    tensor: Any = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
