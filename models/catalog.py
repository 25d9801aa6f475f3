"""catalog.toml as typed records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Dict, Tuple

from worker.engine.manifest import Manifest, PoseNet, Spec, read_manifest
from worker.errors import ModelError, fault_in

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CATALOG = Path(__file__).with_name("catalog.toml")


class SourceFile(Spec):
    """A file that a net can be made from, out of a Python package or from one of `urls`; `bytes` 0 is unknown."""

    name: str
    format: str
    sha256: str
    bytes: int
    package: str = ""
    member: str = ""
    urls: Tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Where the file comes from, for the record."""
        return (
            f"{self.package.replace('==', ' ')}, {self.member}"
            if self.package
            else f"{self.name}, SHA-256 {self.sha256}"
        )


class Entry(PoseNet):
    """One net of the catalogue; `confirm` says that its user must agree to the licence first.

    `architecture` is the net in this package that bare weights fill, or "".
    """

    title: str
    confirm: bool = False
    architecture: str = ""
    files: Tuple[SourceFile, ...]

    def manifest(self, directory: Path, source: str) -> Manifest:
        """What model.json says of this net in `directory`, made from `source`; checksums are still empty."""
        shared = {name: getattr(self, name) for name in PoseNet.model_fields}
        return Manifest(**shared, source=source, predict_sha256="", sha256="", directory=directory)

    def is_intact(self, directory: Path) -> bool:
        """Whether `directory` holds this net, undamaged and described as the catalogue does."""
        try:
            manifest = read_manifest(directory)
            manifest.verify()
        except ModelError:
            return False
        return (manifest.input, manifest.heatmaps, manifest.pafs) == (self.input, self.heatmaps, self.pafs)


def read_catalog(path: Path = CATALOG) -> Dict[str, Entry]:
    """All known nets by name.

    Raises:
        ModelError: the catalogue has an entry that lacks a field or has an unknown one.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Entry(name=name, **fields) for name, fields in document.items()}
    except (OSError, ValueError, TypeError) as exc:
        raise ModelError(f"{path} is not a valid catalogue ({fault_in(exc)}); restore it from the repository.") from exc


def find_entry(name: str, path: Path = CATALOG) -> Entry:
    """The entry called `name`.

    Raises:
        ModelError: there is none; the message lists those there are.
    """
    catalog = read_catalog(path)
    if name not in catalog:
        raise ModelError(f"There is no net {name!r} in the catalogue; it has {', '.join(sorted(catalog))}.")
    return catalog[name]
