"""What benchmarks.gpu measures on a GPU, and dry on a CPU; and the nets that it measures with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, NamedTuple, Tuple

import numpy as np

from benchmarks.stand import ROOT
from models.architectures import ARCHITECTURES
from models.catalog import find_entry
from tests.support.cases import random_weights, write_random
from worker.engine.cores import usable_cores
from worker.engine.manifest import INIT_NET, PREDICT_NET, read_manifest
from worker.engine.netdef import read_net

THIN = "mobilenet_thin"
#: The CMU net, with the thin net's maps added to its own, which are zero.
PEOPLED = "cmu_coco_people"
#: What a worker is asked for: photographs of one shape, and of COCO's shapes.
ONE, MIXED = "one shape", "mixed shapes"


class Plan(NamedTuple):
    """What is measured: on a GPU, or dry.

    Attributes:
        nets: which are measured alone; the first is measured in every way.
        queued: nets that are measured through the queue; what is to be reached is said of the first.
        size: height and width of the inputs, `matrix` the side of the matrices, `block` the bytes that are copied.
        compared: batches of the first net with and without what its engine does for a GPU.
        jobs: of each row of the queue; `clients`: how many submit them where there are several.
        settings: of a worker, with what a worker that has them is asked, beside one that has not.
        compiled: how torch.compile is called; `foreign_batch`: inputs of a pass of the foreign runtimes.
    """

    device: str
    precision: str
    nets: Tuple[str, ...]
    queued: Tuple[str, ...]
    size: Tuple[int, int]
    batches: Tuple[int, ...]
    compared: Tuple[int, ...]
    passes: int
    matrix: int
    block: int
    jobs: int
    clients: int
    settings: Tuple[Tuple[Dict[str, Any], str], ...]
    compiled: Dict[str, Any]
    providers: Tuple[str, ...]
    foreign_batch: int


GPU = Plan(
    device="cuda:0",
    precision="fp16",
    nets=("cmu_coco", THIN),
    queued=(PEOPLED, "cmu_coco", THIN),
    size=(368, 656),
    batches=(1, 2, 4, 8, 16),
    compared=(1, 4, 16),
    passes=20,
    matrix=8192,
    block=256 << 20,
    jobs=1500,
    clients=4,
    settings=(({"POSE_WIDTH_STEP": 1}, MIXED), ({"POSE_SLOTS": usable_cores()}, ONE)),
    compiled={"mode": "max-autotune"},
    providers=("CUDAExecutionProvider", "TensorrtExecutionProvider"),
    foreign_batch=8,
)
DRY = GPU._replace(
    device="cpu",
    precision="fp32",
    nets=(THIN,),
    queued=(THIN,),
    size=(64, 96),
    batches=(1, 2),
    compared=(1,),
    passes=2,
    matrix=256,
    block=1 << 20,
    jobs=8,
    clients=2,
    settings=(({"POSE_WIDTH_STEP": 64}, MIXED),),
    compiled={"backend": "eager"},
    providers=("CPUExecutionProvider",),
    foreign_batch=2,
)


def prepared(name: str, folder: Path) -> Path:
    """The net `name` in `folder`; the CMU net has weights from a seed, and its own maps show nobody."""
    directory = folder / name
    if directory.exists():
        return directory
    if name == THIN:
        directory.symlink_to(ROOT / "models" / name)
        return directory
    return write_peopled(directory) if name == PEOPLED else write_random(name, directory, empty=True)


def write_peopled(directory: Path, seed: int = 20161124) -> Path:
    """A net, in `directory`, that costs what the CMU net costs and finds people: association and drawing have work.

    Its maps are those of the thin net, to which those of the CMU net, all zero, are added; so it costs the thin net's
    arithmetic more.
    """
    entry, thin = find_entry("cmu_coco"), read_manifest(ROOT / "models" / THIN)
    architecture = ARCHITECTURES[entry.architecture]()
    weights = random_weights(seed, architecture)
    for blob in entry.output_blobs:
        weights[f"{blob}_w"] *= 0
        weights[f"{blob}_b"] *= 0
    builder = architecture.build(PEOPLED, weights, entry.output_blobs)
    stated = entry.input
    scale = np.full(3, 1 / stated.scale, np.float32)
    builder.parameter("pixels_s", scale)
    builder.parameter("pixels_b", np.array(stated.mean, np.float32))
    builder.add("AffineChannel", [stated.blob, "pixels_s", "pixels_b"], ["pixels"])  # BGR 0..255, as the thin net's
    names = {thin.input.blob: "pixels"}
    for file, to in ((INIT_NET, builder.init), (PREDICT_NET, builder.predict)):
        for operator in read_net(thin.directory / file).op:
            copy = to.op.add()
            copy.CopyFrom(operator)
            for blobs in (copy.input, copy.output):
                blobs[:] = [names.get(blob, f"thin/{blob}") for blob in blobs]
            if file == INIT_NET:
                builder.predict.external_input.extend(copy.output)
    heatmaps, pafs = (spec.blob for spec in (entry.heatmaps, entry.pafs))
    builder.add("Concat", [heatmaps, pafs], ["zeros", "zeros_dims"], axis=1)
    builder.add("Sum", [f"thin/{thin.heatmaps.blob}", "zeros"], ["maps"])
    del builder.predict.external_output[:]
    builder.predict.external_output.append("maps")
    changes = {kind: getattr(thin, kind).model_copy(update={"blob": "maps"}) for kind in ("heatmaps", "pafs")}
    manifest = entry.manifest(directory, "random").model_copy(update={"name": PEOPLED, **changes})
    builder.write(directory, manifest)
    return directory
