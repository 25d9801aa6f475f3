"""Record what Caffe2 computes, for tests/unit/engine/test_recorded.py: ``python -m tests.caffe2.record``.

Beside it, what OpenCV 4 makes of a Caffe net, for tests/unit/models/test_prototxt.py: OpenCV 5 reads none. With the
variable CAFFE2_MAPS only what Caffe2 computes is written, to that file, and of large nets as much as of small ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tests.support import ROOT
from tests.support.caffe_nets import OPENCV, RECORDED, opencv_maps
from tests.support.cases import GOLDEN, LIVE, RANDOM, batch, recorded, sampled, write_operators, write_random
from worker.engine import load


def main() -> None:
    """Run every case in Caffe2 and write the file."""
    outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        directories = {
            "mobilenet_thin": ROOT / "models" / "mobilenet_thin",
            "operators": write_operators(Path(folder) / "operators"),
            **{name: write_random(name, Path(folder) / name) for name in RANDOM},
        }
        for name, directory in directories.items():
            net = load(directory, engine="caffe2")
            for size, count in recorded(name):
                for kind, maps in zip(("heatmaps", "pafs"), net.run(batch(size, count, net.manifest))):
                    outputs[f"{name} {size[0]}x{size[1]} {count} {kind}"] = sampled(maps)
        np.savez_compressed(GOLDEN, **outputs)
        if LIVE:
            return
        maps_of_caffe = {
            f"{seed} {size[0]}x{size[1]}": opencv_maps(Path(folder), seed, size) for seed, size in RECORDED
        }
    np.savez_compressed(OPENCV, **maps_of_caffe)


if __name__ == "__main__":
    main()
