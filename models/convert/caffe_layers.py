"""Caffe's layers → operators of an :class:`Architecture`.

A BatchNorm becomes a SpatialBN and a Scale an AffineChannel; the engines merge both into the convolution before them.
Each function takes a layer whose bottoms are there and whose tops may be made; it raises ValueError, in words that end
a sentence about the layer, where a setting is not supported.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Tuple

import numpy as np

from models.architectures import Architecture

Layer = Any  # caffe_pb2.LayerParameter, or the older V1LayerParameter

#: Types of layers that may write over their input, in Caffe2 too.
IN_PLACE = frozenset({"BatchNorm", "Dropout", "ELU", "Eltwise", "PReLU", "ReLU", "Scale", "Sigmoid", "TanH"})


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
LAYERS: Dict[str, Tuple[Callable[[Architecture, Layer], None], int, int, int]] = {
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
