"""A net as an ONNX model, for runtimes that do not read NetDefs.

    python -m models.export mobilenet_thin mobilenet_thin.onnx

NET is a net of the models directory, or a folder with predict_net.pb, init_net.pb and model.json. OUT is written whole
or not at all: if onnxruntime is installed, it runs the model first, and its maps must be those of our own engine.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click
import numpy as np

from models.fetch import models_dir_option
from worker.engine import load
from worker.engine.manifest import MANIFEST, Manifest, read_manifest
from worker.engine.netdef import read_pair
from worker.engine.onnx import to_onnx
from worker.engine.passes import optimise
from worker.errors import ModelError, PoseError
from worker.files import write_whole

#: Of the check: the largest difference, relative to the range of the maps.
TOLERANCE = 1e-4
#: Batch, height and width of the inputs that are compared, in strides of the net.
_SIZES = ((1, 8, 8), (2, 5, 7))


def export(manifest: Manifest) -> bytes:
    """The ONNX model of a net, encoded; it takes any batch, height and width.

    Raises:
        ModelError: the net has a fault, or uses something that is not supported.
    """
    return bytes(to_onnx(optimise(read_pair(manifest))).SerializeToString())


def check(model: bytes, manifest: Manifest) -> None:
    """Compare the maps that onnxruntime makes with `model` to those of our own engine.

    Raises:
        ModelError: onnxruntime refuses the model, or its maps are others.
    """
    import onnxruntime

    net = load(manifest.directory)
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for count, rows, columns in _SIZES:
            stride = manifest.input.stride
            shape = (count, 3, rows * stride, columns * stride)
            batch = np.random.default_rng(0).random(shape, np.float32) - np.float32(0.5)
            found = dict(zip(manifest.output_blobs, session.run(None, {session.get_inputs()[0].name: batch})))
            for spec, expected in zip(manifest.outputs, net.run(batch)):
                _compare(found[spec.blob][:, spec.start : spec.stop], expected, manifest.name)
    except (RuntimeError, ValueError) as exc:
        raise ModelError(f"onnxruntime does not run the net {manifest.name!r} ({exc}); report this.") from exc
    finally:
        net.close()


def _compare(found: Any, expected: np.ndarray, name: str) -> None:
    off = float(np.abs(found - expected).max() / np.ptp(expected))
    if not off <= TOLERANCE:
        raise ModelError(f"onnxruntime makes other maps of the net {name!r}, by {off:.1e} of their range; report this.")


@click.command(help=__doc__)
@click.argument("net")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@models_dir_option
def main(net: str, out: Path, models_dir: Path) -> None:
    """The command line."""
    try:
        directory = next((one for one in (models_dir / net, Path(net)) if (one / MANIFEST).exists()), models_dir / net)
        manifest = read_manifest(directory)
        manifest.verify()
        model = export(manifest)
        checked = importlib.util.find_spec("onnxruntime") is not None
        if checked:
            check(model, manifest)
        write_whole(out, model)
    except OSError as exc:
        click.echo(f"models.export: {out} cannot be written ({exc.strerror}); name a file in another folder.", err=True)
        raise SystemExit(1) from exc
    except PoseError as exc:
        click.echo(f"models.export: {exc}", err=True)
        raise SystemExit(1) from exc
    said = "onnxruntime makes the same maps" if checked else "not checked, for onnxruntime is not installed"
    click.echo(f"{out}: {len(model) / 1e6:.1f} MB, {said}")


if __name__ == "__main__":
    main()
