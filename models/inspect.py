"""What a net is made of and what it costs: operators, parameters, arithmetic, memory for activations.

    python -m models.inspect cmu_coco --size 368x656 --plot live.png

NET is a net of the models directory, or a folder with predict_net.pb, init_net.pb and model.json. A net of the
catalogue whose architecture is known is shown before its weights are here. Nothing is run: figures follow from shapes.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Tuple

import click
import numpy as np

from models.architectures import ARCHITECTURES
from models.catalog import read_catalog
from models.fetch import models_dir_option
from models.lifetimes import Step, steps
from worker.engine.manifest import MANIFEST, read_manifest
from worker.engine.netdef import NetPair, check_pair, read_pair
from worker.engine.passes import optimise
from worker.engine.shapes import DoesNotFit
from worker.errors import ModelError, PoseError


class Inspection(NamedTuple):
    """What is known of one net for one input size: as its files say, and as the default engine runs it."""

    net: NetPair
    given: List[Step]
    running: List[Step]


def inspect(name: str, models_dir: Path, size: Tuple[int, int]) -> Inspection:
    """Look at the net `name` for one image of (height, width) `size`, in fp32.

    Raises:
        ModelError: there is no such net, it has a fault, or it does not admit that size.
    """
    net = _read(name, models_dir)
    try:
        shape = (1, 3, *size)
        return Inspection(net, steps(net, shape, fused=False), steps(optimise(net), shape))
    except DoesNotFit as exc:
        operator, shapes, reason = exc.args
        raise ModelError(
            f"The net {net.name!r} does not admit {size[0]}x{size[1]}: an {operator.title} gets {shapes}, and "
            f"{reason}; try another size."
        ) from exc


def _read(name: str, models_dir: Path) -> NetPair:
    for directory in (Path(models_dir) / name, Path(name)):
        if (directory / MANIFEST).exists():
            return read_pair(read_manifest(directory))
    entry = read_catalog().get(name)
    if entry and entry.architecture in ARCHITECTURES:
        architecture, zero = ARCHITECTURES[entry.architecture](), np.zeros((), np.float32)
        weights = {blob: np.broadcast_to(zero, shape) for blob, shape in architecture.parameters.items()}
        builder = architecture.build(name, weights, entry.output_blobs)
        return check_pair(builder.predict, builder.init, entry.input.blob, entry.output_blobs)
    return read_pair(read_manifest(Path(models_dir) / name))  # says how to fetch it


def table(found: Inspection) -> str:
    """The figures as lines of text."""
    kinds = Counter(operator.type for operator in found.net.operators)
    running = Counter(step.operator.type for step in found.running)
    parameters = found.net.parameters.values()
    widest = max(found.running, key=lambda step: step.live)
    rows = [
        ("", "in its files", "as executed"),
        ("operators", f"{len(found.net.operators)}", f"{len(found.running)}"),
        *((f"  {kind}", f"{count}", f"{running[kind]}") for kind, count in kinds.most_common()),
        ("GFLOP (2 per multiply-add)", _giga(found.given), _giga(found.running)),
        ("activations at their peak, MB", "", ""),
        ("  blobs released after their last use", _mega(found.given, "live"), _mega(found.running, "live")),
        ("  nothing released", _mega(found.given, "held"), _mega(found.running, "held")),
    ]
    lines = [f"{title:<40}{first:>16}{second:>16}".rstrip() for title, first, second in rows]
    millions = sum(values.size for values in parameters) / 1e6
    lines.append(f"parameters: {millions:.1f} M in {len(parameters)} blobs")
    lines.append(f"widest: {widest.operator.type} making {widest.blob}, {'x'.join(map(str, widest.shape))}")
    return "\n".join(lines)


def _giga(running: List[Step]) -> str:
    return f"{sum(step.flop for step in running) / 1e9:.1f}"


def _mega(running: List[Step], what: str) -> str:
    return f"{max(getattr(step, what) for step in running) / 1e6:.1f}"


def plot(found: Inspection, path: Path) -> None:
    """Draw the bytes that are live at each step, with and without release, into a picture at `path`.

    Raises:
        ModelError: matplotlib is not installed, the file cannot be written, or its name ends in no format of pictures.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise ModelError("Drawing needs matplotlib, which is not installed here: pip install matplotlib.") from exc
    widest = max(found.running, key=lambda step: step.live)
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.add_subplot(
        ylabel="activations, MB",
        xlabel=f"{found.net.name}: {len(found.running)} steps in order; the widest makes {widest.blob}",
    )
    for what, title in (("held", "nothing released"), ("live", "blobs released after their last use")):
        axes.stairs([getattr(step, what) / 1e6 for step in found.running], baseline=None, linewidth=2, label=title)
    axes.legend()
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as exc:
        raise ModelError(f"The picture {path} cannot be written ({exc}); name a .png in a folder that exists.") from exc


def _size(context: Any, parameter: Any, text: str) -> Tuple[int, int]:
    matched = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not matched or not all(int(side) for side in matched.groups()):
        raise click.BadParameter(f"{text!r} is not a height and a width in pixels, such as 368x656")
    return int(matched.group(1)), int(matched.group(2))


@click.command(help=__doc__)
@click.argument("net")
@click.option("--size", callback=_size, default="368x656", show_default=True, help="Height x width of the input.")
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw live bytes into FILE.")
@models_dir_option
def main(net: str, size: Tuple[int, int], picture: Optional[Path], models_dir: Path) -> None:
    """The command line."""
    try:
        found = inspect(net, models_dir, size)
        click.echo(f"{found.net.name} at {size[0]}x{size[1]}, one image, fp32")
        click.echo(table(found))
        if picture:
            plot(found, picture)
            click.echo(f"{picture}: drawn")
    except PoseError as exc:
        click.echo(f"models.inspect: {exc}", err=True)
        raise SystemExit(1) from exc


if __name__ == "__main__":
    main()
