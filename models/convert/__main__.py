"""Make a net of the catalogue from a file that is here already.

    python -m models.convert pose_iter_440000.caffemodel --net cmu_coco
    python -m models.convert weights.caffemodel --prototxt deploy.prototxt --net mine

The file's name says its format: .caffemodel (Caffe), .pth or .pt (PyTorch state dict), .pkl (Detectron-style pickle),
.pb (frozen TensorFlow graph), or a folder with predict_net.pb and init_net.pb (Caffe2).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

import click

from models.catalog import CATALOG, Entry, find_entry
from models.fetch import accept_licence_option, catalog_option, models_dir_option, require_licence, write
from models.lock import locked
from worker.engine.manifest import PREDICT_NET, read_manifest, sha256_of
from worker.errors import ModelError

_FORMATS = {
    ".caffemodel": "caffe",
    ".pth": "pytorch",
    ".pt": "pytorch",
    ".pkl": "pickled",
    ".pickle": "pickled",
    ".pb": "tensorflow",
}


def convert(
    source: Path,
    name: str,
    models_dir: Path,
    *,
    source_format: Optional[str] = None,
    prototxt: Optional[Path] = None,
    accept_licence: bool = False,
    catalog: Path = CATALOG,
) -> Path:
    """Make the net `name` from the file or folder `source`; returns its directory.

    Args:
        prototxt: a Caffe net's layers, if they are not those that the catalogue or the .caffemodel names.

    Raises:
        ModelError: the file is of no known format, is not what its name says, or does not fit the net.
    """
    entry = find_entry(name, catalog)
    kind = source_format or _format_of(source)
    if prototxt and kind != "caffe":
        raise ModelError(f"{source} is no .caffemodel, so a prototxt says nothing about it; leave --prototxt out.")
    digest = sha256_of(source) if source.is_file() else ""
    _check_known(entry, source)
    require_licence(entry, accept_licence)
    directory = models_dir / name
    with locked(models_dir / "downloads", name):
        more = {"prototxt": prototxt} if prototxt else {}
        write(entry, source, kind, source.name + (f", SHA-256 {digest}" if digest else ""), directory, **more)
    return directory


def _format_of(source: Path) -> str:
    if not source.exists():
        raise ModelError(f"There is no file {source}; check the path.")
    if source.is_dir() or source.name == PREDICT_NET:
        return "netdef"
    try:
        return _FORMATS[source.suffix.lower()]
    except KeyError as exc:
        raise ModelError(f"{source} ends in none of {', '.join(_FORMATS)}; name its format with --format.") from exc


def _check_known(entry: Entry, source: Path) -> None:
    """A file that bears the name of one in the catalogue must be that file."""
    for file in entry.files:
        if file.name == source.name and not file.is_at(source):
            raise ModelError(
                f"{source} has {file.checksum_of(source)}, expected {file.checksum} for a file of this name; "
                "download it again, or rename it if it holds other weights on purpose."
            )


@click.command(help=__doc__)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--net", "name", required=True, help="The net of the catalogue that it becomes.")
@click.option("--format", "source_format", type=click.Choice(sorted({*_FORMATS.values(), "netdef"})))
@click.option("--prototxt", type=click.Path(path_type=Path), help="A Caffe net's layers, as text or encoded.")
@models_dir_option
@catalog_option
@accept_licence_option
def main(source: Path, name: str, models_dir: Path, **options: Any) -> None:
    """The command line."""
    logging.basicConfig(format="%(message)s")
    try:
        directory = convert(source, name, models_dir, **options)
    except ModelError as exc:
        click.echo(f"models.convert: {exc}", err=True)
        raise SystemExit(1) from exc
    click.echo(f"{directory}: converted and verified (licence: {read_manifest(directory).licence})")


if __name__ == "__main__":
    main()
