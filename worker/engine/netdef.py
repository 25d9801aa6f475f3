"""Parse and check a pair of Caffe2 NetDefs: every fault is found here, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, Set, Tuple

import numpy as np

from worker.engine.fillers import FILLERS, fill
from worker.engine.manifest import INIT_NET, PREDICT_NET, Manifest
from worker.engine.proto import netdef_pb2
from worker.engine.proto.parse import read_message
from worker.errors import ModelError

#: How a single float of Argument.floats (field 5, 32 bits) begins when it is encoded.
_FLOAT_TAG = 5 << 3 | 5

#: Most elements that all parameters of a net have together, which is five times the CMU net: 1 GiB of float32. A file
#: of some bytes may ask for any number.
_MAX_ELEMENTS = 2**28
_SIDES = ("", "_h", "_w", "s")
_WINDOW = frozenset(f"{name}{side}" for name in ("kernel", "stride", "dilation") for side in _SIDES) | {
    *("pad", "pad_t", "pad_l", "pad_b", "pad_r", "pads")
}
_BROADCAST = frozenset({"axis", "broadcast"})
#: Arguments that choose how a backend computes, never what.
_HINTS = frozenset(
    {"order", "exhaustive_search", "cudnn_exhaustive_search", "ws_nbytes_limit", "shared_buffer", "use_cudnn"}
)

#: What can be executed: operator type → the arguments it may carry, and how many inputs it takes.
OPERATORS: Dict[str, Tuple[FrozenSet[str], int, int]] = {
    "Add": (_BROADCAST, 2, 2),
    "AffineChannel": (frozenset(), 3, 3),
    "AveragePool": (_WINDOW | {"count_include_pad", "global_pooling", "legacy_pad"}, 1, 1),
    "Clip": (frozenset({"min", "max"}), 1, 1),
    "Concat": (frozenset({"axis", "add_axis"}), 1, 1024),
    "Conv": (_WINDOW | {"group"}, 2, 3),
    "Dropout": (frozenset({"is_test", "ratio"}), 1, 1),
    "Elu": (frozenset({"alpha"}), 1, 1),
    "FC": (frozenset({"axis", "axis_w"}), 3, 3),
    "Free": (frozenset(), 1, 1024),
    "LeakyRelu": (frozenset({"alpha"}), 1, 1),
    "MaxPool": (_WINDOW | {"global_pooling", "legacy_pad"}, 1, 1),
    "Mul": (_BROADCAST, 2, 2),
    "PRelu": (frozenset(), 2, 2),
    "Reshape": (frozenset({"shape"}), 1, 2),
    "ResizeNearest": (frozenset({"height_scale", "width_scale"}), 1, 1),
    "Softmax": (frozenset({"axis"}), 1, 1),
    "SpatialBN": (frozenset({"is_test", "epsilon", "momentum"}), 5, 5),
    "Sum": (frozenset(), 1, 1024),
    **dict.fromkeys(("Alias", "Copy", "Relu", "Sigmoid", "StopGradient", "Tanh"), (frozenset(), 1, 1)),
}


@dataclass(frozen=True)
class Operator:
    """One operator of a checked net."""

    type: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    args: Dict[str, Any]

    @property
    def title(self) -> str:
        """For messages: the type and what it makes."""
        return f"operator {self.type} making blob {self.outputs[0]!r}" if self.outputs else f"operator {self.type}"

    def fault(self, net: str, reason: str) -> ModelError:
        """The error of the net called `net` that has this operator; `reason` ends its sentence."""
        return ModelError(f"The net {net!r} has an {self.title}{reason}.")


@dataclass(frozen=True)
class NetPair:
    """A checked net: its operators in order and its parameters by blob name."""

    name: str
    operators: Tuple[Operator, ...]
    parameters: Dict[str, np.ndarray]
    input_blob: str
    output_blobs: Tuple[str, ...]


def read_net(path: Path) -> netdef_pb2.NetDef:
    """Parse the NetDef in the file at `path`.

    Raises:
        ModelError: the file is missing, empty, too large, truncated or not a NetDef.
    """
    net = netdef_pb2.NetDef()
    read_message(path, net, "Caffe2 NetDef")
    if not net.op:
        raise ModelError(
            f"{path} is empty or not a Caffe2 NetDef: it has no operators; fetch or convert the net again."
        )
    return net


def read_pair(manifest: Manifest) -> NetPair:
    """Read and check the net that `manifest` describes.

    Raises:
        ModelError: a file or the net in it has a fault.
    """
    predict, init = (read_net(manifest.directory / name) for name in (PREDICT_NET, INIT_NET))
    return check_pair(predict, init, manifest.input.blob, manifest.output_blobs)


def check_pair(
    predict: netdef_pb2.NetDef, init: netdef_pb2.NetDef, input_blob: str, output_blobs: Tuple[str, ...]
) -> NetPair:
    """Check that `predict` can be executed with the parameters that `init` makes.

    Raises:
        ModelError: an operator or argument is not supported, or a blob is missing, made twice where it may not be,
            used before it is made, or of a wrong type. The message names the net, the operator and the blob.
    """
    name = predict.name or "the net"
    parameters = _parameters(init, name)
    operators = [_operator(definition, name) for definition in predict.op]
    check_blobs(name, operators, {*parameters, input_blob}, output_blobs)
    return NetPair(name, tuple(operators), parameters, input_blob, output_blobs)


def check_blobs(name: str, operators: Iterable[Operator], given: Set[str], output_blobs: Iterable[str]) -> None:
    """Check that every operator's inputs are `given` or made before it, and that the outputs are made.

    Raises:
        ModelError: a blob is missing, or used before it is made; the message names the operator and the blob.
    """
    operators, known = list(operators), set(given)
    later = {blob for operator in operators for blob in operator.outputs}
    for operator in operators:
        for blob in operator.inputs:
            if blob not in known:
                reason = "is made only later or in a cycle" if blob in later else "is made by nothing"
                raise operator.fault(name, f" that needs blob {blob!r}, which {reason}")
        known.update(operator.outputs)
    for blob in output_blobs:
        if blob not in known:
            raise ModelError(f"The net {name!r} never makes its output blob {blob!r}; correct its model.json.")


def _parameters(init: netdef_pb2.NetDef, name: str) -> Dict[str, np.ndarray]:
    parameters: Dict[str, np.ndarray] = {}
    left = _MAX_ELEMENTS
    for definition in init.op:
        if definition.type not in FILLERS:
            raise ModelError(
                f"The net {name!r} has an init operator {definition.type} making {list(definition.output)}, which is "
                f"not supported; supported are {', '.join(sorted(FILLERS))}."
            )
        if len(definition.output) != 1 or definition.input:
            raise ModelError(
                f"The net {name!r} has an init operator {definition.type} making {list(definition.output)} from "
                f"{list(definition.input)}; it must make one blob from none."
            )
        blob = definition.output[0]
        try:
            parameters[blob] = fill(definition.type, arguments(definition), blob, left)
        except (KeyError, ValueError, TypeError, OverflowError, MemoryError) as exc:
            raise ModelError(f"The net {name!r} cannot fill its parameter blob {blob!r}: {exc}.") from exc
        left -= parameters[blob].size
    return parameters


def _operator(definition: netdef_pb2.OperatorDef, name: str) -> Operator:
    operator = Operator(definition.type, tuple(definition.input), tuple(definition.output), arguments(definition))
    if operator.type not in OPERATORS:
        raise operator.fault(name, f", which is not supported; supported are {', '.join(sorted(OPERATORS))}")
    allowed, least, most = OPERATORS[operator.type]
    known = ", ".join(sorted(allowed | _HINTS))
    for argument in operator.args:
        if argument not in allowed and argument not in _HINTS:
            raise operator.fault(
                name, f" with the argument {argument!r}, which is not supported; supported are {known}"
            )
    if not least <= len(operator.inputs) <= most:
        raise operator.fault(name, f" with {len(operator.inputs)} inputs; it takes {least} to {most}")
    if not operator.outputs and operator.type != "Free":
        raise operator.fault(name, " that makes no blob")
    if operator.args.get("order", b"NCHW") != b"NCHW":
        raise operator.fault(name, " in an order other than NCHW, which is not supported")
    return operator


def arguments(definition: netdef_pb2.OperatorDef) -> Dict[str, Any]:
    """The arguments of an operator as plain values: int, float, bytes, or an array or list of them."""
    values: Dict[str, Any] = {}
    for arg in definition.arg:
        if arg.HasField("i"):
            values[arg.name] = int(arg.i)
        elif arg.HasField("f"):
            values[arg.name] = float(arg.f)
        elif arg.HasField("s"):
            values[arg.name] = bytes(arg.s)
        elif len(arg.floats):
            values[arg.name] = _floats(arg)
        elif len(arg.strings):
            values[arg.name] = list(arg.strings)
        else:
            values[arg.name] = np.asarray(arg.ints, np.int64)
    return values


def _floats(arg: netdef_pb2.Argument) -> np.ndarray:
    """The floats of `arg`, read off its encoded form: one by one, the CMU net's 52 million take ten seconds.

    Fields are written in the order of their numbers and single floats as a tag byte and four bytes each, so in an
    argument that has a name and floats, the floats stand at the end.
    """
    data = arg.SerializeToString(deterministic=True)
    rows = np.frombuffer(data, np.uint8)[-5 * len(arg.floats) :].reshape(-1, 5)
    if not (rows[:, 0] == _FLOAT_TAG).all():  # something else stands there, such as unknown fields
        return np.asarray(arg.floats, np.float32)
    return np.ascontiguousarray(rows[:, 1:]).view("<f4").reshape(-1)
