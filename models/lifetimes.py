"""How long each blob of a net is needed, and so how much memory its activations take: worked out, not run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Dict, List

from worker.engine.netdef import NetPair, Operator
from worker.engine.passes import relus_after_convolutions, single_assignment
from worker.engine.shapes import Shape, operator_shapes

#: What :func:`single_assignment` adds to the name of a blob that is written again later.
_VERSION = re.compile(r"#\d+'*$")


@dataclass(frozen=True)
class Step:
    """One operator as it runs, and the blob that it makes.

    `live`: bytes of all blobs that memory must hold while it runs, its inputs and its output among them, if each is
    released after its last use. `held`: bytes if none is released before the end. `flop`: two for each multiplication
    with an addition, in convolutions and fully connected layers.
    """

    operator: Operator
    blob: str
    shape: Shape
    live: int
    held: int
    flop: int


def steps(net: NetPair, input_shape: Shape, *, fused: bool = True) -> List[Step]:
    """The steps of `net` for an input of `input_shape` (N, C, H, W).

    Bytes are those of fp32. An operator that writes over its input takes no memory of its own.

    Args:
        fused: a Relu that alone reads a convolution is done with it, in place, as the default engine does.

    Raises:
        DoesNotFit: an operator cannot be computed from what it is given.
    """
    written_over = [op.outputs[0] in op.inputs for op in net.operators if op.type != "Free"]
    net = single_assignment(net)
    shapes: Dict[str, Shape] = {blob: values.shape for blob, values in net.parameters.items()}
    shapes[net.input_blob] = input_shape
    relus = {relu.outputs[0] for relu in relus_after_convolutions(net).values()} if fused else set()
    memory_of = {blob: blob for blob in shapes}
    for operator, shape, over in zip(net.operators, operator_shapes(net, input_shape), written_over):
        blob = operator.outputs[0]
        shapes[blob] = shape
        memory_of[blob] = memory_of[operator.inputs[0]] if over or blob in relus else blob
    running = [operator for operator in net.operators if operator.outputs[0] not in relus]
    last = {memory_of[blob]: number for number, operator in enumerate(running) for blob in operator.inputs}
    last.update((memory_of[blob], len(running)) for blob in net.output_blobs)
    sizes = {blob: 4 * math.prod(shape) for blob, shape in shapes.items() if blob not in net.parameters}
    live, held = {net.input_blob}, {net.input_blob}
    found: List[Step] = []
    for number, operator in enumerate(running):
        blob = memory_of[operator.outputs[0]]
        live.add(blob)
        held.add(blob)
        found.append(
            Step(
                operator,
                _VERSION.sub("", operator.outputs[0]),
                shapes[operator.outputs[0]],
                sum(sizes[name] for name in live),
                sum(sizes[name] for name in held),
                _flop(operator, [shapes[name] for name in operator.inputs], shapes[operator.outputs[0]]),
            )
        )
        live = {name for name in live if last.get(name, -1) > number}
    return found


def _flop(operator: Operator, inputs: List[Shape], output: Shape) -> int:
    if operator.type == "Conv":
        return 2 * math.prod(output) * math.prod(inputs[1][1:])
    if operator.type == "FC":
        return 2 * math.prod(output) * (math.prod(inputs[1]) // output[-1])
    return 0
