"""A Caffe net's definition (NetParameter, as a deploy prototxt has it) → an :class:`Architecture`.

What the outputs do not need is left out, and so is what only training has. Layers run in the order in which they
stand, as in Caffe.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Sequence, Set

from google.protobuf import text_format

from models.architectures import Architecture
from models.convert.caffe_layers import IN_PLACE, LAYERS, Layer
from models.proto import caffe_pb2
from worker.engine.proto.parse import read_message
from worker.errors import ModelError

#: Largest definition that is read, in bytes; ResNet-152 has a tenth of it.
_MAX_BYTES = 1 << 21
#: Types in files older than LayerParameter that are not only written in another way.
_V1_TYPES = {"RELU": "ReLU", "TANH": "TanH"}
#: Characters of a name that a message shows.
_SHOWN = 60


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
            if wanted.intersection(layer.top) and not self._gives_input(layer):
                wanted.update(layer.bottom)
                found.append(layer)
        return found[::-1]

    def _gives_input(self, layer: Layer) -> bool:
        """Whether the layer is where images come from, and not one that works on them in place."""
        return self.net.input_blob in layer.top and self.net.input_blob not in layer.bottom

    def translate(self, layer: Layer) -> None:
        """Append the operators of one layer."""
        kind, tops, bottoms = _type(layer), list(layer.top), list(layer.bottom)
        if kind not in LAYERS:
            raise self.fault(layer, f"is not supported; supported are {', '.join(sorted(LAYERS))}")
        if layer.name in self._names:
            raise self.fault(layer, "has the name of another layer, so that nobody knows whose the weights are")
        self._names.add(layer.name)
        convert, least, most, made = LAYERS[kind]
        if not least <= len(bottoms) <= most or not 1 <= len(tops) <= made:
            raise self.fault(layer, f"has {len(bottoms)} bottoms and {len(tops)} tops, which do not fit its type")
        for bottom in bottoms:
            if bottom not in self.net.channels:
                reason = "is made only later or in a cycle" if bottom in self._made else "is made by nothing"
                raise self.fault(layer, f"needs blob {bottom[:_SHOWN]!r}, which {reason}")
        for top in tops:
            if top in self.net.channels and (kind not in IN_PLACE or top != bottoms[0]):
                raise self.fault(layer, f"makes blob {top[:_SHOWN]!r} again")
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
