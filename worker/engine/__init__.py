"""A NetDef in, a Net out. Importing this package imports no framework; :func:`load` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from worker.engine.manifest import Manifest, read_manifest
from worker.engine.net import Maps, Net, map_shapes
from worker.errors import ModelError


def load(
    model_dir: Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    engine: str = "torch",
    threads: Optional[int] = None,
    compile: str = "off",
) -> Net:
    """Load the net in `model_dir`.

    Args:
        device: ``cpu`` or ``cuda:<i>``.
        precision: ``fp32``, ``bf16`` or ``fp16``; a CPU without instructions for it runs in fp32, and the log says so.
        engine: what executes it: ``torch``; ``openvino``, on a CPU; ``caffe2``, where that is installed; or ``null``,
            which finds nobody.
        threads: CPU threads; None: one for each core.
        compile: how torch may make the net faster for sizes that come again: ``off`` or ``graph``.

    Raises:
        ModelError: a file is missing or corrupt, or the net uses something that is not supported.
    """
    manifest = read_manifest(Path(model_dir))
    manifest.verify()
    _wait_briefly()
    if engine == "torch":
        from worker.engine.torch_engine import TorchNet

        return TorchNet(manifest, device=device, precision=precision, threads=threads, compile=compile)
    if engine == "openvino":
        from worker.engine.openvino_engine import OpenVinoNet

        return OpenVinoNet(manifest, device=device, precision=precision, threads=threads)
    if engine == "null":
        from worker.engine.null_engine import NullNet

        return NullNet(manifest, device=device, precision=precision)
    if engine == "caffe2":
        from worker.engine.caffe2_engine import Caffe2Net

        return Caffe2Net(manifest, device=device, precision=precision, threads=threads)
    raise ModelError(f"There is no engine {engine!r}; set POSE_ENGINE to auto, torch, openvino or caffe2.")


def _wait_briefly() -> None:
    """Let this process's OpenMP threads sleep when they wait for each other, instead of keeping a core busy.

    On a CPU the net shares its cores with the slots that read and draw: with one other busy process on two cores a
    pass takes between half and a quarter of the time that it takes when they spin, and 2 % more when nobody else is
    there. GNU OpenMP reads its settings when it is loaded, so they must be set before the framework is.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


__all__ = ["Manifest", "Maps", "Net", "load", "map_shapes", "read_manifest"]
