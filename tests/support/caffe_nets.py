"""A Caffe net that was written by hand, with weights from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np

from models.catalog import Entry
from models.proto import caffe_pb2
from worker.engine.manifest import InputSpec, OutputSpec

#: Every layer that is understood: windows that round up, dilation, groups, what writes over its input and what does
#: not, and beside them what only training has.
PROTOTXT = """
# A net by hand
name: "by hand"
input: "image"  # its size is only known later
input_shape { dim: 1 dim: 3 dim: 64 dim: 64 }
layer {
  name: "first" type: "Convolution" bottom: "image" top: "first"
  param { lr_mult: 1.0 decay_mult: 1 } param { lr_mult: 2.0, decay_mult: 0 }
  convolution_param {
    num_output: 12 kernel_size: 3 stride: 2 pad: 1 engine: CAFFE
    weight_filler { type: "gaussian" std: 0.01 } bias_filler: < type: 'constant' >
  }
}
layer { name: "norm" type: "BatchNorm" bottom: "first" top: "norm" batch_norm_param { eps: 1e-3 } }
layer { name: "norm_scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
layer { name: "leak" type: "ReLU" bottom: "norm" top: "norm" relu_param { negative_slope: 0.1 } }
layer { name: "down" type: "Pooling" bottom: "norm" top: "down" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer {
  name: "dilated" type: "Convolution" bottom: "down" top: "dilated"
  convolution_param { num_output: 12 kernel_h: 3 kernel_w: 1 pad_h: 2 pad_w: 0 dilation: 2 group: 2 bias_term: false }
}
layer { name: "slopes" type: "PReLU" bottom: "dilated" top: "slopes" }
layer { name: "slope" type: "PReLU" bottom: "slopes" top: "slopes" prelu_param { channel_shared: true } }
layer { name: "apart" type: "Split" bottom: "slopes" top: "one" top: "two" }
layer { name: "bent" type: "ELU" bottom: "one" top: "one" elu_param { alpha: 0.7 } }
layer { name: "squashed" type: "Sigmoid" bottom: "two" top: "squashed" }
layer { name: "also" type: "TanH" bottom: "two" top: "also" }
layer { name: "sum" type: "Eltwise" bottom: "one" bottom: "squashed" top: "sum" eltwise_param { operation: SUM } }
layer { name: "product" type: "Eltwise" bottom: "sum" bottom: "also" top: "product" eltwise_param { operation: PROD } }
layer { name: "scale" type: "Scale" bottom: "product" top: "scale" }
layer { name: "drop" type: "Dropout" bottom: "scale" top: "scale" dropout_param { dropout_ratio: 0.5 } }
layer { name: "pass" type: "Dropout" bottom: "scale" top: "pass" }
layer { name: "mean" type: "Pooling" bottom: "pass" top: "mean" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer {
  name: "near" type: "Pooling" bottom: "mean" top: "near"
  pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }
}
layer {
  name: "most" type: "Pooling" bottom: "pass" top: "most" pooling_param { pool: MAX kernel_h: 2 kernel_w: 2 stride: 2 }
}
layer { name: "joined" type: "Concat" bottom: "near" bottom: "most" bottom: "mean" top: "joined" }
layer {
  name: "maps" type: "Convolution" bottom: "joined" top: "net_output"
  convolution_param { num_output: 57 kernel_size: 1 }
}
layer {
  name: "aside" type: "Convolution" bottom: "joined" top: "aside" convolution_param { num_output: 9 kernel_size: 1 }
}
"""

#: Of each layer that has weights, their shapes in order.
SHAPES: Mapping[str, Sequence[Tuple[int, ...]]] = {
    "first": [(12, 3, 3, 3), (12,)],
    "norm": [(12,), (12,), (1,)],
    "norm_scale": [(12,), (12,)],
    "dilated": [(12, 6, 3, 1)],
    "slopes": [(12,)],
    "slope": [(1,)],
    "scale": [(12,)],
    "maps": [(57, 36, 1, 1), (57,)],
    "aside": [(9, 36, 1, 1), (9,)],
}

Blobs = Dict[str, List[np.ndarray]]


def caffe_weights(seed: int, shapes: Mapping[str, Sequence[Tuple[int, ...]]] = SHAPES) -> Blobs:
    """Weights of these shapes; the layer "norm" has a variance above 0, and a third blob that divides the others."""
    generator = np.random.default_rng(seed)
    blobs: Blobs = {}
    for layer, wanted in shapes.items():
        blobs[layer] = [
            (generator.standard_normal(shape) / np.sqrt(max(1.0, np.prod(shape[1:])))).astype(np.float32)
            for shape in wanted
        ]
    if "norm" in blobs:
        blobs["norm"][1] = np.abs(blobs["norm"][1]) + np.float32(0.5)
        blobs["norm"][2] = np.full(1, 0.5, np.float32)
    return blobs


def write_caffemodel(path: Path, blobs: Mapping[str, Sequence[np.ndarray]], prototxt: str = "") -> Path:
    """A .caffemodel of these blobs by layer; with the layers of `prototxt` too, if it is given."""
    from google.protobuf import text_format

    net = caffe_pb2.NetParameter()
    text_format.Parse(prototxt, net)
    layers = {layer.name: layer for layer in net.layer}
    for name, values in blobs.items():
        layer = layers[name] if name in layers else net.layer.add(name=name)
        for array in values:
            blob = layer.blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.shape.SetInParent()
            blob.data.extend(array.ravel().tolist())
    path.write_bytes(net.SerializeToString())
    return path


def caffe_entry(**changes: object) -> Entry:
    """What the catalogue would say of the net by hand."""
    spec = {"channel_order": "BGR", "mean": (128.0,) * 3, "scale": 1 / 256, "stride": 8, "pad_value": 128}
    fields = {
        "name": "by_hand",
        "title": "A net by hand",
        "licence": "none",
        "skeleton": "COCO-18",
        "input": InputSpec(blob="image", **spec),
        "heatmaps": OutputSpec(blob="net_output", start=0, stop=19),
        "pafs": OutputSpec(blob="net_output", start=19, stop=57),
        "files": (),
        **changes,
    }
    return Entry(**fields)


def write_by_hand(directory: Path, seed: int = 3) -> Path:
    """The net by hand as it is converted, in `directory`."""
    from models.convert import caffe

    directory.parent.mkdir(parents=True, exist_ok=True)
    definition = directory.with_suffix(".prototxt")
    definition.write_text(PROTOTXT)
    weights = write_caffemodel(directory.with_suffix(".caffemodel"), caffe_weights(seed))
    entry = caffe_entry()
    manifest = entry.manifest(directory, "a test")
    builder = caffe.convert(weights, entry, definition)
    builder.check(manifest)
    builder.write(directory, manifest)
    return directory


def opencv_maps(folder: Path, seed: int, size: Tuple[int, int], prototxt: str = PROTOTXT) -> np.ndarray:
    """What OpenCV 4 makes of the net by hand; OpenCV 5 reads no Caffe nets."""
    import cv2

    (folder / "net.prototxt").write_text(prototxt)
    path = write_caffemodel(folder / "net.caffemodel", caffe_weights(seed))
    net = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(path))
    net.setInput(caffe_input(size))
    maps: np.ndarray = net.forward("net_output")
    return maps


def caffe_input(size: Tuple[int, int]) -> np.ndarray:
    """Two normalised images of (height, width) `size`."""
    return np.random.default_rng(size).standard_normal((2, 3, *size)).astype(np.float32)


#: Seeds of weights and sizes of inputs for which OpenCV's maps are recorded, and where.
RECORDED = ((3, (64, 64)), (8, (40, 56)))
OPENCV = Path(__file__).with_name("opencv_outputs.npz")
