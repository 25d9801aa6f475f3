"""Rewrites of a checked net that leave its maps as they are, but for the last bits.

They work on operators and parameters alone, so every engine may use them. Kept are those that pay in
benchmarks/engine.py; docs/models.md says what each brings.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from worker.engine.netdef import NetPair, Operator
from worker.engine.window import conv_window

#: Operators that give their first input back.
_IDENTITIES = frozenset({"Alias", "Copy", "Dropout", "StopGradient"})
#: Operators that treat all channels alike, and each by itself.
_CHANNELWISE = _IDENTITIES | {
    *("AveragePool", "Clip", "Elu", "LeakyRelu", "MaxPool", "Relu", "ResizeNearest", "Sigmoid", "Tanh")
}
#: Operators that have a parameter for each channel.
_BY_CHANNEL = frozenset({"AffineChannel", "PRelu", "SpatialBN"})
#: A GPU's matrix units take channels by this many.
_GROUP = 8


def optimise(net: NetPair) -> NetPair:
    """All rewrites, in the order in which they make room for each other."""
    for rewrite in (single_assignment, drop_identities, fold_batch_norms, fold_scalings):
        net = rewrite(net)
    return net


def single_assignment(net: NetPair) -> NetPair:
    """Give each blob one writer: a blob that is written again (in place, or by memonger) gets a new name.

    Output blobs keep the name that model.json knows, which is then the name of what was written last.
    """
    last = {operator.outputs[0]: index for index, operator in enumerate(net.operators) if operator.type != "Free"}
    current: Dict[str, str] = {}
    given = {net.input_blob, *net.parameters}
    taken = given | set(last)
    operators: List[Operator] = []
    for index, operator in enumerate(net.operators):
        if operator.type == "Free":
            continue  # whoever executes the net releases by lifetimes
        inputs = tuple(current.get(blob, blob) for blob in operator.inputs)
        blob = operator.outputs[0]
        name = blob
        if blob in given or last[blob] != index:
            name = _fresh(f"{blob}#{index}", taken)
        current[blob] = name
        operators.append(replace(operator, inputs=inputs, outputs=(name,)))
    outputs = tuple(current.get(blob, blob) for blob in net.output_blobs)
    return replace(net, operators=tuple(operators), output_blobs=outputs)


def drop_identities(net: NetPair) -> NetPair:
    """Leave out Copy, Dropout and their like; their readers read what they read. One that makes an output stays."""
    behind: Dict[str, str] = {}
    operators: List[Operator] = []
    for operator in net.operators:
        inputs = tuple(behind.get(blob, blob) for blob in operator.inputs)
        training = operator.type == "Dropout" and not operator.args.get("is_test")
        if operator.type in _IDENTITIES and not training and operator.outputs[0] not in net.output_blobs:
            behind[operator.outputs[0]] = inputs[0]
        else:
            operators.append(replace(operator, inputs=inputs))
    return replace(net, operators=tuple(operators))


def fold_batch_norms(net: NetPair) -> NetPair:
    """A SpatialBN or AffineChannel after a convolution scales its weights and shifts its bias."""

    def fold(first: Operator, second: Operator, parameters: Dict[str, np.ndarray]) -> Optional[Operator]:
        if second.type != "AffineChannel" and (second.type != "SpatialBN" or not second.args.get("is_test")):
            return None
        if any(blob not in parameters for blob in second.inputs[1:]):
            return None
        factor, shift, *stored = (parameters[blob].astype(np.float64) for blob in second.inputs[1:])
        mean = stored[0] if stored else 0.0
        if stored:
            factor = factor / np.sqrt(stored[1] + float(second.args.get("epsilon", 1e-5)))
        weight, bias = _weights(first, parameters)
        return _convolution(
            first,
            second.outputs[0],
            parameters,
            weight * factor[:, None, None, None],
            (bias - mean) * factor + shift,
        )

    return _merge_pairs(net, fold)


def fold_scalings(net: NetPair) -> NetPair:
    """A 1×1 depthwise convolution only scales and shifts channels: the pointwise one after it does that as well.

    The second may not pad, for what the first shifts would be missing in the padding; without a bias in the first it
    may.
    """

    def fold(first: Operator, second: Operator, parameters: Dict[str, np.ndarray]) -> Optional[Operator]:
        if not _is_scaling(first, parameters) or not _is_plain(second, parameters):
            return None
        if int(second.args.get("group", 1)) != 1:
            return None
        factor, shift = (values.reshape(-1) for values in _weights(first, parameters))
        weight, bias = _weights(second, parameters)
        if shift.any() and weight.shape[2:] != (1, 1):
            return None
        return _convolution(
            replace(second, inputs=(first.inputs[0], *second.inputs[1:])),
            second.outputs[0],
            parameters,
            weight * factor[None, :, None, None],
            bias + weight.sum((2, 3)) @ shift,
        )

    return _merge_pairs(net, fold)


def pad_channels(net: NetPair) -> NetPair:
    """Give convolutions whose channels are no multiple of 8 further ones with weights of zero.

    The convolution that reads such channels has weights of zero for them. An output blob may get some at its end,
    behind those that model.json names. Where an operator in between needs to know its channels, nothing is padded.
    Blobs must have one writer each. For GPUs only: on a CPU, more channels take more time.
    """
    whole: Set[str] = set()
    while True:
        padded, broken = _padded(net, whole)
        if not broken:
            return padded
        whole |= broken


def _padded(net: NetPair, whole: Set[str]) -> Tuple[NetPair, Set[str]]:
    """The net with padded channels, and the convolutions that must not be padded: none if the net is right.

    Args:
        whole: results of convolutions that stay as they are.
    """
    parameters, operators = dict(net.parameters), []
    given: Dict[str, np.ndarray] = {}  # blob → of each of its channels, whether the net has it without padding
    padders: Dict[str, Set[str]] = defaultdict(set)  # blob → the convolutions whose padding is among its channels
    broken: Set[str] = set()
    for operator in net.operators:
        blob, inputs = operator.outputs[0], operator.inputs
        if _is_plain(operator, parameters) and int(operator.args.get("group", 1)) == 1:
            count = len(parameters[inputs[1]])
            given[blob] = np.arange(count if blob in whole else -(-count // _GROUP) * _GROUP) < count
            if not given[blob].all():
                padders[blob] = {blob}
            if padders[blob] or padders[inputs[0]]:
                operator = _with_channels(operator, parameters, given[blob], given.get(inputs[0]))
        elif _is_depthwise(operator, parameters) and inputs[0] in given:
            given[blob], padders[blob] = given[inputs[0]], padders[inputs[0]]
            if padders[blob]:
                operator = _with_channels(operator, parameters, given[blob], None)
                operator = replace(operator, args={**operator.args, "group": len(given[blob])})
        elif operator.type in _CHANNELWISE and inputs[0] in given:
            given[blob], padders[blob] = given[inputs[0]], padders[inputs[0]]
        elif _joins_channels(operator) and all(one in given for one in inputs):
            given[blob] = np.concatenate([given[one] for one in inputs])
            padders[blob] = set().union(*(padders[one] for one in inputs))
        else:
            broken.update(*(padders[one] for one in inputs))
            if operator.type in _BY_CHANNEL and inputs[0] in given:
                given[blob] = given[inputs[0]]
        operators.append(operator)
    apart = (padders[blob] for blob in net.output_blobs if padders[blob] and not given[blob][: given[blob].sum()].all())
    return _with(net, operators, parameters), broken.union(*apart)


def _with_channels(
    operator: Operator, parameters: Dict[str, np.ndarray], made: np.ndarray, read: Optional[np.ndarray]
) -> Operator:
    """A convolution with weights of zero where `made` or `read` is False; `read` None: it reads what it has read."""
    weight, bias = _weights(operator, parameters)
    read = np.ones(weight.shape[1], bool) if read is None else read
    weights, biases = np.zeros((len(made), len(read), *weight.shape[2:])), np.zeros(len(made))
    weights[np.ix_(made, read)], biases[made] = weight, bias
    return _convolution(operator, operator.outputs[0], parameters, weights, biases)


def _is_depthwise(operator: Operator, parameters: Dict[str, np.ndarray]) -> bool:
    """Whether a convolution makes one channel of each."""
    if not _is_plain(operator, parameters):
        return False
    made, read = parameters[operator.inputs[1]].shape[:2]
    return read == 1 and int(operator.args.get("group", 1)) == made


def _joins_channels(operator: Operator) -> bool:
    return operator.type == "Concat" and operator.args.get("axis", 1) == 1 and not operator.args.get("add_axis")


def relus_after_convolutions(net: NetPair) -> Dict[str, Operator]:
    """Blob made by a convolution → the Relu that alone reads it, and so can be done in place.

    Blobs must have one writer each.
    """
    readers = Counter(blob for operator in net.operators for blob in operator.inputs)
    readers.update(net.output_blobs)
    convolutions = {operator.outputs[0] for operator in net.operators if operator.type == "Conv"}
    relus = [operator for operator in net.operators if operator.type == "Relu"]
    return {relu.inputs[0]: relu for relu in relus if relu.inputs[0] in convolutions and readers[relu.inputs[0]] == 1}


#: Makes one convolution of a convolution and the only reader of its result, or None.
Fold = Callable[[Operator, Operator, Dict[str, np.ndarray]], Optional[Operator]]


def _merge_pairs(net: NetPair, fold: Fold) -> NetPair:
    parameters = dict(net.parameters)
    readers = Counter(blob for operator in net.operators for blob in operator.inputs)
    readers.update(net.output_blobs)
    makers: Dict[str, int] = {}
    operators: List[Optional[Operator]] = []
    for operator in net.operators:
        index = makers.get(operator.inputs[0], -1) if operator.inputs else -1
        first = operators[index] if index >= 0 else None
        merged = None
        if first is not None and _is_plain(first, parameters) and readers[first.outputs[0]] == 1:
            merged = fold(first, operator, parameters)
        if merged is not None:
            operators[index] = None
        makers[operator.outputs[0]] = len(operators)
        operators.append(merged or operator)
    return _with(net, [operator for operator in operators if operator is not None], parameters)


def _with(net: NetPair, operators: Sequence[Operator], parameters: Dict[str, np.ndarray]) -> NetPair:
    """The net with other `operators`, and those of `parameters` that they read."""
    used = {blob for operator in operators for blob in operator.inputs} | set(net.output_blobs)
    kept = {blob: values for blob, values in parameters.items() if blob in used}
    return replace(net, operators=tuple(operators), parameters=kept)


def _is_plain(operator: Operator, parameters: Dict[str, np.ndarray]) -> bool:
    return operator.type == "Conv" and all(blob in parameters for blob in operator.inputs[1:])


def _weights(operator: Operator, parameters: Dict[str, np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
    """Weights and bias in double precision; no bias is one of zeros."""
    weight = parameters[operator.inputs[1]].astype(np.float64)
    bias = parameters[operator.inputs[2]].astype(np.float64) if len(operator.inputs) > 2 else np.zeros(len(weight))
    return weight, bias


def _is_scaling(operator: Operator, parameters: Dict[str, np.ndarray]) -> bool:
    """Whether a convolution is 1×1, has one weight for each channel, and looks at every pixel once."""
    shape, args = parameters[operator.inputs[1]].shape, operator.args
    if shape[1:] != (1, 1, 1) or int(args.get("group", 1)) != shape[0]:
        return False
    window = conv_window(args, (1, 1))
    return window.stride == (1, 1) and not any(window.pads)


def _convolution(
    like: Operator, output: str, parameters: Dict[str, np.ndarray], weight: np.ndarray, bias: np.ndarray
) -> Operator:
    """A convolution as `like`, of new weights, which become parameters of their own."""
    taken = set(parameters)
    names = [_fresh(f"{output}#{kind}", taken) for kind in "wb"]
    values = weight.astype(np.float32), bias.astype(np.float32)
    given = len(like.inputs) > 2 or bias.any()
    parameters.update(zip(names, values if given else values[:1]))
    return replace(like, inputs=(like.inputs[0], *(names if given else names[:1])), outputs=(output,))


def _fresh(name: str, taken: Set[str]) -> str:
    while name in taken:
        name += "'"
    taken.add(name)
    return name
