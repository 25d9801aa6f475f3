"""A checked net as a torch.fx GraphModule, whose generated code drops each blob after its last use."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Dict, Optional, Sequence, Tuple

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
        function, constants = _call(operator, net)
        result = graph.call_function(function, tuple(blobs[name] for name in _tensors(operator)), constants)
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
        The shapes of the output blobs for one input image of `height` by `width`; empty if the net has an operator
        that admits only another input size.

    Raises:
        ModelError: parameters and blobs do not fit together; the message names the operator, its blob and the shapes.
    """
    try:
        blobs = _run_shapes(net, height, width)
    except _DoesNotFit as exc:
        operator, shapes, reason = exc.args
        if operator.type in _SIZED and shapes != _input_shapes(net, operator, 2 * height, 2 * width):
            return ()
        listed = ", ".join(f"{name} {shape}" for name, shape in zip(operator.inputs, shapes))
        raise ModelError(
            f"The net {net.name!r} has an {operator.title} from {listed} that do not fit: {reason}."
        ) from exc
    return tuple(tuple(blobs[blob].shape) for blob in net.output_blobs)


class _DoesNotFit(Exception):
    """An operator, its inputs' shapes, and why it cannot be computed from them."""


def _run_shapes(net: NetPair, height: int, width: int, until: Optional[Operator] = None) -> Dict[str, torch.Tensor]:
    blobs: Dict[str, torch.Tensor] = {
        name: torch.empty(values.shape, dtype=torch.from_numpy(values[:0]).dtype, device="meta")
        for name, values in net.parameters.items()
    }
    blobs[net.input_blob] = torch.empty((1, 3, height, width), device="meta")
    for operator in net.operators:
        if operator is until:
            break
        if operator.type == "Free":
            continue
        function, constants = _call(operator, net)
        try:
            _check_inputs(operator, blobs)
            blobs[operator.outputs[0]] = function(*(blobs[name] for name in _tensors(operator)), **constants)
        except (RuntimeError, ValueError, IndexError, TypeError) as exc:
            shapes = tuple(tuple(blobs[name].shape) for name in operator.inputs)
            raise _DoesNotFit(operator, shapes, str(exc).splitlines()[0].rstrip(".")) from exc
    return blobs


def _check_inputs(operator: Operator, blobs: Dict[str, torch.Tensor]) -> None:
    """What running on shapes alone lets pass: data types, and vectors of one value for each channel."""
    inputs = [blobs[name] for name in _tensors(operator)]
    vectors: Sequence[torch.Tensor] = ()
    if operator.type in ("Conv", "FC"):
        channels, vectors = inputs[1].shape[0], inputs[2:]
        if operator.type == "FC":
            channels = math.prod(inputs[1].shape[: int(operator.args.get("axis_w", 1))])
    elif operator.type == "SpatialBN":
        channels, vectors = inputs[0].shape[1], inputs[1:]
    if any(vector.shape != (channels,) for vector in vectors):
        raise ValueError(
            f"{', '.join(operator.inputs[-len(vectors) :])} must have one value for each of {channels} channels"
        )
    if not all(tensor.is_floating_point() for tensor in inputs):
        raise TypeError("all must be of floating-point numbers")


def _input_shapes(net: NetPair, operator: Operator, height: int, width: int) -> Tuple[Tuple[int, ...], ...]:
    """The shapes that reach `operator` from an image of another size; empty if it is not reached."""
    try:
        blobs = _run_shapes(net, height, width, operator)
    except _DoesNotFit:
        return ()
    return tuple(tuple(blobs[name].shape) for name in operator.inputs)


def _tensors(operator: Operator) -> Tuple[str, ...]:
    """The inputs that the operator's function takes; a Reshape's shape is a constant by then."""
    return operator.inputs[:1] if operator.type == "Reshape" else operator.inputs


def _call(operator: Operator, net: NetPair) -> Call:
    try:
        if operator.type == "Reshape" and len(operator.inputs) == 2:
            if operator.inputs[1] not in net.parameters:
                raise ValueError(f"takes its shape from blob {operator.inputs[1]!r}, which is not a parameter")
            operator = replace(operator, args={**operator.args, "shape": net.parameters[operator.inputs[1]]})
        return call_for(operator)
    except (ValueError, TypeError) as exc:
        raise ModelError(f"The net {net.name!r} has an {operator.title} that {exc}.") from exc


def _tensor(values: np.ndarray) -> torch.Tensor:
    tensor: Any = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
