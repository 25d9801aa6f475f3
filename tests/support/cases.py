"""The nets and inputs that are compared between Caffe2 and the default engine, live and by what was recorded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterator, Tuple

import numpy as np

from models.architectures import ARCHITECTURES, Architecture
from models.catalog import find_entry
from tests.support.nets import Op, netdef
from worker.engine.manifest import Manifest

#: Of every comparison: the largest difference, relative to the range of the output.
TOLERANCE = 1e-4
#: Net inputs (height, width); none but the first is a multiple of 16, so that every padding occurs.
SIZES = ((64, 64), (40, 56), (24, 104), (72, 8), (56, 88))
BATCHES = (1, 3)
#: Nets of the catalogue that are compared with random weights.
RANDOM = ("cmu_coco", "lightweight_openpose", "body_25")
#: The file that `make caffe2-test` has just let Caffe2 write, if it is that which is compared with.
LIVE = os.environ.get("CAFFE2_MAPS")
#: Where Caffe2's outputs are recorded, as float16 of some values.
GOLDEN = Path(LIVE or Path(__file__).with_name("caffe2_outputs.npz"))


def batch(size: Tuple[int, int], count: int, manifest: Manifest) -> np.ndarray:
    """A normalised batch (count, 3, height, width) of smooth noise, the same everywhere."""
    height, width = size
    generator = np.random.default_rng([height, width, count])
    coarse = generator.integers(0, 256, (count, 3, -(-height // 8), -(-width // 8))).astype(np.float32)
    pixels = coarse.repeat(8, 2).repeat(8, 3)[:, :, :height, :width]
    mean = np.array(manifest.input.mean, np.float32).reshape(1, 3, 1, 1)
    return ((pixels - mean) * np.float32(manifest.input.scale)).astype(np.float32)


def write_random(name: str, directory: Path, seed: int = 20161124, *, empty: bool = False) -> Path:
    """The net `name` of the catalogue with weights from `seed`, in `directory`; `empty` if its maps show nobody."""
    entry = find_entry(name)
    architecture = ARCHITECTURES[entry.architecture]()
    weights = random_weights(seed, architecture)
    for blob in entry.output_blobs if empty else ():  # random maps are full of peaks, as no photograph's are
        weights[f"{blob}_w"] *= 0
        weights[f"{blob}_b"] *= 0
    builder = architecture.build(name, weights, entry.output_blobs)
    builder.write(directory, entry.manifest(directory, "random"))
    return directory


def write_operators(directory: Path) -> Path:
    """A net that has every operator of convolutional nets, with asymmetric pads and dilations, in `directory`."""
    from models.netpair import NetPairBuilder

    generator = np.random.default_rng(5)
    parameters = {
        "c1_w": generator.standard_normal((12, 3, 3, 3)) / 5,
        "c1_b": generator.standard_normal(12),
        "dw_w": generator.standard_normal((12, 1, 3, 3)) / 3,
        "g_w": generator.standard_normal((12, 6, 3, 3)) / 7,
        "g_b": generator.standard_normal(12),
        "s": generator.random(12) + 0.5,
        "t": generator.standard_normal(12),
        "m": generator.standard_normal(12),
        "v": generator.random(12) + 0.5,
        "p": generator.standard_normal(12) / 2,
        "out_w": generator.standard_normal((57, 36, 1, 1)) / 6,
        "out_b": generator.standard_normal(57),
    }
    small: Dict[str, int] = {"kernel": 2, "stride": 2}
    operators: Tuple[Op, ...] = (
        (
            "Conv",
            ["data", "c1_w", "c1_b"],
            ["c1"],
            {"kernel": 3, "stride": 2, "pad_t": 0, "pad_l": 0, "pad_b": 1, "pad_r": 1},
        ),
        ("Relu", ["c1"], ["c1"], {}),
        ("Conv", ["c1", "dw_w"], ["dw"], {"kernel": 3, "pads": [2, 1, 2, 3], "dilations": [2, 2], "group": 12}),
        ("SpatialBN", ["dw", "s", "t", "m", "v"], ["bn"], {"is_test": 1, "epsilon": 1e-3, "order": "NCHW"}),
        ("Clip", ["bn"], ["clip"], {"min": -1.0, "max": 2.0}),
        ("MaxPool", ["clip"], ["mp"], {"kernel": 3, "stride": 2, "pads": [0, 0, 1, 1]}),
        ("Conv", ["mp", "g_w", "g_b"], ["g"], {"kernel": 3, "pad": 1, "group": 2}),
        ("Sigmoid", ["g"], ["sig"], {}),
        ("Dropout", ["sig"], ["drop", "mask"], {"is_test": 1, "ratio": 0.5}),
        ("Copy", ["drop"], ["copy"], {}),
        ("Elu", ["g"], ["elu"], {"alpha": 0.7}),
        ("Tanh", ["elu"], ["tanh"], {}),
        ("PRelu", ["g", "p"], ["slope"], {}),
        ("AffineChannel", ["slope", "s", "t"], ["affine"], {}),
        ("Mul", ["affine", "tanh"], ["product"], {}),
        ("LeakyRelu", ["g"], ["leak"], {"alpha": 0.2}),
        ("Sum", ["copy", "mp", "product", "leak"], ["sum"], {}),
        ("AveragePool", ["sum"], ["a1"], small),
        ("MaxPool", ["sum"], ["a2"], small),
        ("AveragePool", ["sum"], ["a3"], {"kernel": 3, "stride": 2, "pads": [1, 1, 0, 0]}),
        ("Concat", ["a1", "a2", "a3"], ["cat", "cat_dims"], {"axis": 1}),
        ("Conv", ["cat", "out_w", "out_b"], ["out"], {"kernel": 1}),
        ("Softmax", ["out"], ["soft"], {"axis": 1}),
        ("Sum", ["soft", "out"], ["y"], {}),
    )
    builder = NetPairBuilder("operators", "data")
    for blob, values in parameters.items():
        builder.parameter(blob, values.astype(np.float32))
    builder.predict.op.extend(netdef(operators).op)
    builder.predict.external_output.append("y")
    manifest = find_entry("mobilenet_thin").manifest(directory, "a test")
    changes = {
        "name": "operators",
        "input": manifest.input.model_copy(update={"blob": "data", "mean": (100.0, 110.0, 120.0), "scale": 1 / 64}),
        "heatmaps": manifest.heatmaps.model_copy(update={"blob": "y"}),
        "pafs": manifest.pafs.model_copy(update={"blob": "y"}),
    }
    manifest = manifest.model_copy(update=changes)
    builder.write(directory, manifest)
    return directory


def recorded(name: str) -> Iterator[Tuple[Tuple[int, int], int]]:
    """The (size, batch) of a net whose outputs are recorded; for the file in git, few of a large net."""
    for size in SIZES:
        for count in BATCHES:
            if LIVE or name in ("mobilenet_thin", "operators") or (size in SIZES[1:3] and count == 1):
                yield size, count


def sampled(maps: np.ndarray) -> np.ndarray:
    """What is recorded of an output: every 23rd value, which meets every row, column and channel in turn."""
    return maps.ravel()[::23]


def random_weights(seed: int, architecture: Architecture) -> Dict[str, np.ndarray]:
    """Weights from `seed`, scaled (He et al. 2015) so that signals neither die nor explode: for tests and timings."""
    generator = np.random.default_rng(seed)
    weights: Dict[str, np.ndarray] = {}
    for blob, shape in architecture.parameters.items():
        deviation = np.sqrt(2.0 / np.prod(shape[1:])) if len(shape) == 4 else 0.05
        weights[blob] = (generator.standard_normal(shape, np.float32) * np.float32(deviation)).astype(np.float32)
        if len(shape) == 1 and blob.endswith((".weight", ".running_var")):  # of a batch norm
            weights[blob] += 1
    return weights
