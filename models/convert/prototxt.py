"""A Caffe net's definition (NetParameter, as a deploy prototxt has it) → an :class:`Architecture`.

What the outputs do not need is left out, and so is what only training has. Layers run in the order in which they
stand, as in Caffe. A BatchNorm becomes a SpatialBN and a Scale an AffineChannel; the engines merge both into the
convolution before them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Set, Tuple

import numpy as np
from google.protobuf import text_format

from models.architectures import Architecture
from models.proto import caffe_pb2
from worker.engine.proto.parse import read_message
from worker.errors import ModelError

#: Largest definition that is read, in bytes; ResNet-152 has a tenth of it.
_MAX_BYTES = 1 << 21
#: Types of layers that may write over their input, in Caffe2 too.
_IN_PLACE = frozenset({"BatchNorm", "Dropout", "ELU", "Eltwise", "PReLU", "ReLU", "Scale", "Sigmoid", "TanH"})
#: Types in files older than LayerParameter that are not only written in another way.
_V1_TYPES = {"RELU": "ReLU", "TANH": "TanH"}
#: Characters of a name that a message shows.
_SHOWN = 60

Layer = Any  # caffe_pb2.LayerParameter, or the older V1LayerParameter


def read_definition(path: Path) -> caffe_pb2.NetParameter:
    """The net that the file at `path` defines, as text or encoded.

    Raises:
        ModelError: it is missing, too large, or no definition; the message says in which line, if it is text.
    """
    net = caffe_pb2.NetParameter()
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path} is larger than {_MAX_BYTES} bytes, which no Caffe net's definition is.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise ModelError(f"{path} cannot be read ({exc.strerror}); check the path.") from exc
    except UnicodeDecodeError:
        text = "\0"
    if any(ord(character) < 32 and not character.isspace() for character in text):  # no text: encoded
        read_message(path, net, "Caffe net's definition")
        return net
    try:
        text_format.Parse(text, net)
    except (text_format.ParseError, ValueError) as exc:  # ValueError: escapes that are no UTF-8
        reason = re.sub(r"^(\d+):\d+ : ", r"line \1: ", str(exc)[:300]).rstrip(".")
        raise ModelError(f"{path} is no Caffe net's definition that is understood here ({reason}).") from exc
    return net


def to_architecture(
    net: caffe_pb2.NetParameter, input_blob: str, output_blobs: Sequence[str], source: str
) -> Architecture:
    """The architecture that `net` defines, as far as its outputs need it.

    Args:
        source: where it comes from, for messages.

    Raises:
        ModelError: a layer is not known, has a setting that is not supported, makes a blob again, or needs one that is
            not there; or an input or output is missing.
    """
    definition = _Definition(net, input_blob, source)
    for layer in definition.needed(output_blobs):
        definition.translate(layer)
    found = definition.net
    both = set(found.channels).intersection([*found.parameters, *found.constants])
    if both:
        raise ModelError(f"{source} has blobs that are called as parameters are here: {_listed(both)}; rename them.")
    return found


class _Definition:
    def __init__(self, net: caffe_pb2.NetParameter, input_blob: str, source: str) -> None:
        self.net = Architecture(input_blob)
        self._source = source
        self._layers = [layer for layer in [*net.layers, *net.layer] if _in_test(layer)]
        self._names: Set[str] = set()
        self._made: Set[str] = set()
        inputs = {*net.input, *(top for layer in self._layers if _type(layer) == "Input" for top in layer.top)}
        if inputs and input_blob not in inputs:
            raise ModelError(
                f"{source} has the inputs {_listed(inputs)}, and none called {input_blob!r}; correct the net's input "
                "in the catalogue."
            )

    def needed(self, output_blobs: Sequence[str]) -> List[Layer]:
        """The layers that the outputs need, in order."""
        if not self._layers:
            raise ModelError(f"{self._source} has no layers; is it the right file?")
        self._made = {top for layer in self._layers for top in layer.top}
        for blob in output_blobs:
            if blob not in self._made:
                ends = self._made - {bottom for layer in self._layers for bottom in layer.bottom}
                raise ModelError(
                    f"{self._source} never makes the output blob {blob!r}; its last blobs are {_listed(ends)}."
                )
        wanted, found = set(output_blobs), []
        for layer in reversed(self._layers):
            if wanted.intersection(layer.top) and self.net.input_blob not in layer.top:
                wanted.update(layer.bottom)
                found.append(layer)
        return found[::-1]

    def translate(self, layer: Layer) -> None:
        """Append the operators of one layer."""
        kind, tops, bottoms = _type(layer), list(layer.top), list(layer.bottom)
        if kind not in _LAYERS:
            raise self.fault(layer, f"is not supported; supported are {', '.join(sorted(_LAYERS))}")
        if layer.name in self._names:
            raise self.fault(layer, "has the name of another layer, so that nobody knows whose the weights are")
        self._names.add(layer.name)
        for bottom in bottoms:
            if bottom not in self.net.channels:
                reason = "is made only later or in a cycle" if bottom in self._made else "is made by nothing"
                raise self.fault(layer, f"needs blob {bottom[:_SHOWN]!r}, which {reason}")
        for top in tops:
            if top in self.net.channels and (kind not in _IN_PLACE or top != bottoms[0]):
                raise self.fault(layer, f"makes blob {top[:_SHOWN]!r} again")
        convert, least, most, made = _LAYERS[kind]
        if not least <= len(bottoms) <= most or not 1 <= len(tops) <= made:
            raise self.fault(layer, f"has {len(bottoms)} bottoms and {len(tops)} tops, which do not fit its type")
        try:
            convert(self.net, layer)
        except ValueError as exc:
            raise self.fault(layer, str(exc)) from exc

    def fault(self, layer: Layer, reason: str) -> ModelError:
        """What is wrong with `layer`; `reason` ends the sentence."""
        return ModelError(
            f"{self._source}: the layer {layer.name[:_SHOWN]!r} of type {_type(layer)[:_SHOWN]} {reason}."
        )


def _type(layer: Layer) -> str:
    """The type of a layer as newer files have it, such as Convolution."""
    if isinstance(layer, caffe_pb2.LayerParameter):
        return str(layer.type)
    name = layer.LayerType.Name(layer.type)
    return _V1_TYPES.get(name, name.capitalize())


def _in_test(layer: Layer) -> bool:
    """Whether the layer is there when the net is not trained."""
    rules, test = (layer.include, True) if layer.include else (layer.exclude, False)
    matches = any(not rule.HasField("phase") or rule.phase == caffe_pb2.TEST for rule in rules)
    return matches is test


def _listed(names: Set[str]) -> str:
    shown = ", ".join(repr(name[:_SHOWN]) for name in sorted(names)[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def _sides(param: Any, name: str, default: int, plain: str = "") -> Tuple[int, int]:
    """Rows and columns of a window's kernel, stride, pad or dilation, which are given together or apart."""
    if any(f"{name}{side}" in {field.name for field, _ in param.ListFields()} for side in ("_h", "_w")):
        return int(getattr(param, f"{name}_h")), int(getattr(param, f"{name}_w"))
    given = getattr(param, plain or name)
    if isinstance(given, int):
        given = [given] if given or param.HasField(plain or name) else []
    values = [int(value) for value in given] or [default]
    if len(values) > 2:
        raise ValueError(f"has {len(values)} numbers as its {plain or name}; it needs one or two")
    return values[0], values[-1]


def _window(param: Any) -> Dict[str, int]:
    """Strides and pads in Caffe2's words."""
    stride, pad = _sides(param, "stride", 1), _sides(param, "pad", 0)
    strides = {"stride": stride[0]} if stride[0] == stride[1] else {"stride_h": stride[0], "stride_w": stride[1]}
    if pad[0] == pad[1]:
        return {**strides, "pad": pad[0]}
    return {**strides, "pad_t": pad[0], "pad_b": pad[0], "pad_l": pad[1], "pad_r": pad[1]}


def _convolution(net: Architecture, layer: Layer) -> None:
    param, source = layer.convolution_param, layer.bottom[0]
    group, channels = int(param.group), net.channels[source]
    if param.axis != 1:
        raise ValueError("has its channels along an axis that is not 1, which is not supported")
    if group < 1 or channels % group or param.num_output % group:
        raise ValueError(f"has {group} groups, into which {channels} and {param.num_output} channels do not fall")
    rows, columns = _sides(param, "dilation", 1)
    dilation = (
        {"dilation_h": rows, "dilation_w": columns} if rows != columns else {"dilation": rows} if rows > 1 else {}
    )
    net.conv(
        layer.name,
        source,
        int(param.num_output),
        _sides(param, "kernel", 0, "kernel_size"),
        output=layer.top[0],
        group=group,
        bias=bool(param.bias_term),
        **_window(param),
        **dilation,
    )


def _pooling(net: Architecture, layer: Layer) -> None:
    """Caffe rounds the number of windows up, which Caffe2 knows as legacy_pad 3."""
    param, source = layer.pooling_param, layer.bottom[0]
    kind = {param.MAX: "MaxPool", param.AVE: "AveragePool"}.get(param.pool)
    if kind is None:
        raise ValueError("draws at random, which is not supported")
    args: Dict[str, int] = {"global_pooling": 1}
    if not param.global_pooling:
        rows, columns = _sides(param, "kernel", 0, "kernel_size")
        args = {"kernel": rows} if rows == columns else {"kernel_h": rows, "kernel_w": columns}
        args.update(_window(param))
        if param.round_mode == param.CEIL and set(_sides(param, "stride", 1)) != {1}:
            args["legacy_pad"] = 3
        if kind == "AveragePool" and any(_sides(param, "pad", 0)):
            # Caffe counts the padding, but not what a window that is rounded up has beyond it.
            if "legacy_pad" in args:
                raise ValueError("averages a padded map with a stride, rounding up, which is not supported")
            args["count_include_pad"] = 1
    net.add(kind, [source], layer.top[0], net.channels[source], **args, order="NCHW")


def _concat(net: Architecture, layer: Layer) -> None:
    param = layer.concat_param
    if (param.concat_dim if param.HasField("concat_dim") else param.axis) not in (1, -3):
        raise ValueError("joins along an axis that is not the channels', which is not supported")
    net.concat(layer.top[0], layer.bottom)


def _eltwise(net: Architecture, layer: Layer) -> None:
    param, bottoms = layer.eltwise_param, list(layer.bottom)
    if any(coefficient != 1 for coefficient in param.coeff):
        raise ValueError("weighs what it adds, which is not supported")
    if param.operation == param.SUM:
        net.activation("Sum", bottoms[0], layer.top[0], *bottoms[1:])
    elif param.operation == param.PROD and len(bottoms) == 2:
        net.activation("Mul", bottoms[0], layer.top[0], bottoms[1])
    else:
        raise ValueError("is neither a sum nor a product of two, which alone are supported")


def _batch_norm(net: Architecture, layer: Layer) -> None:
    """Its weights are mean and variance; see :mod:`models.convert.caffe`."""
    if layer.batch_norm_param.HasField("use_global_stats") and not layer.batch_norm_param.use_global_stats:
        raise ValueError("takes the statistics of each batch, which is not supported")
    name, source = layer.name, layer.bottom[0]
    channels = net.channels[source]
    plain = [
        net.constant(f"{name}#{kind}", _same_values(channels, value)) for kind, value in (("scale", 1), ("shift", 0))
    ]
    stored = [net.parameter(f"{name}#{kind}", channels) for kind in ("mean", "var")]
    args = {"is_test": 1, "epsilon": float(layer.batch_norm_param.eps), "order": "NCHW"}
    net.activation("SpatialBN", source, layer.top[0], *plain, *stored, **args)


def _scale(net: Architecture, layer: Layer) -> None:
    param, name, channels = layer.scale_param, layer.name, net.channels[layer.bottom[0]]
    if param.axis not in (1, -3) or param.num_axes != 1:
        raise ValueError("does not scale each channel, which alone is supported")
    factor, shift = net.parameter(f"{name}_w", channels), f"{name}_b"
    if param.bias_term:
        net.parameter(shift, channels)
    else:
        net.constant(shift, _same_values(channels, 0))
    net.activation("AffineChannel", layer.bottom[0], layer.top[0], factor, shift, order="NCHW")


def _same_values(channels: int, value: int) -> np.ndarray:
    """A vector that takes no memory: a definition may say any number of channels."""
    return np.broadcast_to(np.float32(value), (channels,))


def _relu(net: Architecture, layer: Layer) -> None:
    slope = float(layer.relu_param.negative_slope)
    if slope:
        net.activation("LeakyRelu", layer.bottom[0], layer.top[0], alpha=slope)
    else:
        net.activation("Relu", layer.bottom[0], layer.top[0])


def _prelu(net: Architecture, layer: Layer) -> None:
    net.prelu(layer.name, layer.bottom[0], layer.top[0], shared=bool(layer.prelu_param.channel_shared))


def _elu(net: Architecture, layer: Layer) -> None:
    net.activation("Elu", layer.bottom[0], layer.top[0], alpha=float(layer.elu_param.alpha))


def _alike(kind: str) -> Callable[[Architecture, Layer], None]:
    def append(net: Architecture, layer: Layer) -> None:
        net.activation(kind, layer.bottom[0], layer.top[0])

    return append


def _same(net: Architecture, layer: Layer) -> None:
    """A layer that only passes on, to one blob or several; in place, it is nothing."""
    for top in layer.top:
        if top != layer.bottom[0]:
            net.activation("Copy", layer.bottom[0], top)


#: Type of a layer → what appends it, least and most bottoms, most tops.
_LAYERS: Dict[str, Tuple[Callable[[Architecture, Layer], None], int, int, int]] = {
    "BatchNorm": (_batch_norm, 1, 1, 1),
    "Concat": (_concat, 1, 1024, 1),
    "Convolution": (_convolution, 1, 1, 1),
    "Dropout": (_same, 1, 1, 1),
    "ELU": (_elu, 1, 1, 1),
    "Eltwise": (_eltwise, 2, 1024, 1),
    "PReLU": (_prelu, 1, 1, 1),
    "Pooling": (_pooling, 1, 1, 1),
    "ReLU": (_relu, 1, 1, 1),
    "Scale": (_scale, 1, 1, 1),
    "Sigmoid": (_alike("Sigmoid"), 1, 1, 1),
    "Split": (_same, 1, 1, 1024),
    "TanH": (_alike("Tanh"), 1, 1, 1),
}
