"""Caffe's .caffemodel (a NetParameter with the trained blobs) → a net of a known architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Tuple

import numpy as np

from models.catalog import Entry
from models.convert.weights import build_net
from models.netpair import NetPairBuilder
from models.proto import caffe_pb2
from worker.engine.proto.parse import read_message
from worker.errors import ModelError

#: A layer's blobs in their order: weights, then bias.
_SUFFIXES = ("w", "b")


def convert(path: Path, entry: Entry) -> NetPairBuilder:
    """Read the weights in the .caffemodel at `path`; raises ModelError."""
    net = caffe_pb2.NetParameter()
    read_message(path, net, ".caffemodel")
    weights: Dict[str, np.ndarray] = {}
    for layer in [*net.layer, *net.layers]:
        if len(layer.blobs) > len(_SUFFIXES):
            raise ModelError(f"{path} has a layer {layer.name!r} with {len(layer.blobs)} blobs; a convolution has two.")
        for suffix, blob in zip(_SUFFIXES, layer.blobs):
            weights[f"{layer.name}_{suffix}"] = _values(blob, f"{path}, layer {layer.name!r}")
    return build_net(entry, weights, str(path))


def _values(blob: caffe_pb2.BlobProto, where: str) -> np.ndarray:
    shape: Tuple[int, ...] = tuple(blob.shape.dim)
    if not blob.HasField("shape"):
        shape = (blob.num, blob.channels, blob.height, blob.width)
        # Old files give a bias four dimensions too: 1, 1, 1, n.
        shape = shape[3:] if shape[:3] == (1, 1, 1) else shape
    values = _floats(blob) if len(blob.data) else np.array(blob.double_data, np.float32)
    if values.size != int(np.prod(shape)):
        raise ModelError(f"{where}: {values.size} values for the shape {shape}; the file is damaged, fetch it again.")
    return values.reshape(shape)


def _floats(blob: caffe_pb2.BlobProto) -> np.ndarray:
    """The field `data`, read off its encoded form, a packed run: one by one, 52 million floats take ten seconds."""
    alone = caffe_pb2.BlobProto()
    alone.data.MergeFrom(blob.data)
    return np.frombuffer(alone.SerializeToString(), "<f4", offset=alone.ByteSize() - 4 * len(blob.data)).copy()
