"""Caffe's .caffemodel (a NetParameter with the trained blobs) → a net.

The net's layers are those of a prototxt, if one is given; else those of the architecture that the catalogue names; else
those that stand in the .caffemodel itself.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from models.architectures import Architecture
from models.catalog import Entry
from models.convert.bounded import in_bounds
from models.convert.prototxt import read_definition, to_architecture
from models.convert.weights import build_net, fill
from models.netpair import NetPairBuilder
from models.proto import caffe_pb2
from worker.engine.proto.parse import read_message
from worker.errors import ModelError

logger = logging.getLogger(__name__)

#: What a layer's blobs are called, by how many it has. The third of a BatchNorm divides the others.
_SUFFIXES = {1: ("_w",), 2: ("_w", "_b"), 3: ("#mean", "#var")}


def convert(path: Path, entry: Entry, prototxt: Optional[Path] = None) -> NetPairBuilder:
    """Read the weights in the .caffemodel at `path`, and the layers in `prototxt` if it is given; raises ModelError."""
    try:
        own, weights = in_bounds(_read, path, entry, prototxt)
    except ModelError:
        raise
    except Exception as exc:  # the process that read it grew too large, or took too long
        raise ModelError(f"{path} cannot be read ({exc or type(exc).__name__}); is it the right file?") from exc
    if own is None:
        return build_net(entry, weights, str(path))
    others = [blob for blob in weights if blob not in own.parameters]
    if others:
        logger.warning("%s has %d blobs that %s does not need, such as %s", path, len(others), entry.name, others[0])
    return fill(own, entry, {blob: weights[blob] for blob in weights if blob in own.parameters}, str(path))


def _read(path: Path, entry: Entry, prototxt: Optional[Path]) -> Tuple[Optional[Architecture], Dict[str, np.ndarray]]:
    """The architecture, unless it is that of the catalogue, and the weights by blob name."""
    definition = read_definition(prototxt) if prototxt else None
    net = caffe_pb2.NetParameter()
    read_message(path, net, ".caffemodel")
    weights: Dict[str, np.ndarray] = {}
    for layer in [*net.layer, *net.layers]:
        weights.update(_weights(layer, f"{path}, layer {layer.name[:60]!r}"))
    if definition is None and entry.architecture:
        return None, weights
    source = prototxt if definition else path
    return to_architecture(definition or net, entry.input.blob, entry.output_blobs, str(source)), weights


def _weights(layer: caffe_pb2.LayerParameter, where: str) -> Dict[str, np.ndarray]:
    """A layer's blobs by name."""
    if not layer.blobs:
        return {}
    if len(layer.blobs) not in _SUFFIXES:
        raise ModelError(
            f"{where}: it has {len(layer.blobs)} blobs; the layers that are known here have three at most."
        )
    values: List[np.ndarray] = [_values(blob, where) for blob in layer.blobs]
    if len(values) == 3:
        factor = float(values[2].reshape(-1)[0]) if values[2].size else 0.0
        values = [stored * np.float32(1 / factor if factor else 0) for stored in values[:2]]
    return {f"{layer.name}{suffix}": stored for suffix, stored in zip(_SUFFIXES[len(layer.blobs)], values)}


def _values(blob: caffe_pb2.BlobProto, where: str) -> np.ndarray:
    shape: Tuple[int, ...] = tuple(blob.shape.dim)
    if not blob.HasField("shape"):
        shape = (blob.num, blob.channels, blob.height, blob.width)
        # Old files give a bias four dimensions too: 1, 1, 1, n.
        shape = shape[3:] if shape[:3] == (1, 1, 1) else shape
    values = _floats(blob) if len(blob.data) else np.array(blob.double_data, np.float32)
    if values.size != int(np.prod(shape, dtype=object)) or min(shape, default=0) < 0:
        raise ModelError(
            f"{where}: {values.size} values for the shape {shape[:8]}; the file is damaged, fetch it again."
        )
    # One slope for all channels has no dimension at all in newer files.
    return values.reshape(shape or (1,))


def _floats(blob: caffe_pb2.BlobProto) -> np.ndarray:
    """The field `data`, read off its encoded form, a packed run: one by one, 52 million floats take ten seconds."""
    alone = caffe_pb2.BlobProto()
    alone.data.MergeFrom(blob.data)
    return np.frombuffer(alone.SerializeToString(), "<f4", offset=alone.ByteSize() - 4 * len(blob.data)).copy()
