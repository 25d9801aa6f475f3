"""A net without its weights, in Caffe2's words: what a builder of this package makes, and what a prototxt says."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

import numpy as np

from models.netpair import NetPairBuilder

Shape = Tuple[int, ...]


class _Operator(NamedTuple):
    kind: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    args: Dict[str, Any]


class Architecture:
    """Operators in the order they run, each of which makes one blob.

    A layer's parameters are called after it: ``<layer>_w`` and ``<layer>_b`` by default.

    Args:
        suffixes: of the names of a layer's parameters.
        spare: how parameters of a file begin that the net may do without; "" if it needs all.

    Attributes:
        parameters: shapes of the blobs that weights must bring, by name, in order.
        constants: the blobs that no weights bring.
        channels: how many channels each blob has that was made so far.
    """

    def __init__(self, input_blob: str, suffixes: Tuple[str, str] = ("_w", "_b"), spare: str = "") -> None:
        self.input_blob, self.spare = input_blob, spare
        self.parameters: Dict[str, Shape] = {}
        self.constants: Dict[str, np.ndarray] = {}
        self.channels: Dict[str, int] = {input_blob: 3}
        self._suffixes = suffixes
        self._operators: List[_Operator] = []

    def add(self, kind: str, inputs: Sequence[str], output: str, channels: int, *spare: str, **args: Any) -> str:
        """Append an operator that makes `output` of `channels`, and return that name.

        Args:
            spare: further outputs, which nobody reads.
            args: the operator's arguments.
        """
        self._operators.append(_Operator(kind, tuple(inputs), (output, *spare), args))
        self.channels[output] = channels
        return output

    def parameter(self, name: str, *shape: int) -> str:
        """Declare a parameter blob, and return its name."""
        self.parameters[name] = shape
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """Declare a parameter blob of known `values`, and return its name."""
        self.constants[name] = values
        return name

    def conv(
        self,
        name: str,
        source: str,
        channels: int,
        kernel: Union[int, Tuple[int, int]],
        *,
        output: str = "",
        group: int = 1,
        bias: bool = True,
        **window: Any,
    ) -> str:
        """Append a convolution called `name`, which makes the blob `output`, or that of its own name.

        Args:
            kernel: of both sides, or rows and columns.
            window: stride, pad and dilation, in Caffe2's words; the pad that keeps the size is the default.
        """
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight, shift = (name + suffix for suffix in self._suffixes)
        inputs = [source, self.parameter(weight, channels, self.channels[source] // group, rows, columns)]
        if bias:
            inputs.append(self.parameter(shift, channels))
        args = {"kernel": rows} if rows == columns else {"kernel_h": rows, "kernel_w": columns}
        if group > 1:
            args["group"] = group
        if not any(key.startswith("pad") for key in window):
            args["pad"] = rows // 2
        return self.add("Conv", inputs, output or name, channels, **{**args, "stride": 1, **window}, order="NCHW")

    def activation(self, kind: str, source: str, output: str = "", *parameters: str, **args: Any) -> str:
        """Append an operator that leaves the shape as it is; in place, if no `output` is named."""
        return self.add(kind, [source, *parameters], output or source, self.channels[source], **args)

    def prelu(self, name: str, source: str, output: str = "", *, shared: bool = False) -> str:
        """Append a PRelu called `name`, of a slope for each channel or of one for all; in place by default."""
        slope = self.parameter(name + self._suffixes[0], 1 if shared else self.channels[source])
        return self.activation("PRelu", source, output, slope)

    def concat(self, name: str, sources: Sequence[str]) -> str:
        """Append a join of `sources` along their channels."""
        channels = sum(self.channels[source] for source in sources)
        return self.add("Concat", sources, name, channels, f"_{name}_dims", axis=1)

    def build(self, name: str, weights: Mapping[str, np.ndarray], outputs: Sequence[str]) -> NetPairBuilder:
        """The net called `name` with `weights`, which must have the blobs and shapes of `parameters`."""
        builder = NetPairBuilder(name, self.input_blob)
        for blob in self.parameters:
            builder.parameter(blob, weights[blob])
        for blob, values in self.constants.items():
            builder.parameter(blob, values)
        for operator in self._operators:
            builder.add(operator.kind, operator.inputs, operator.outputs, **operator.args)
        builder.predict.external_output.extend(outputs)
        return builder
