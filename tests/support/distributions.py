"""An environment with fewer distributions than this one: what others do without is out of reach of the imports."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Iterable, Set

#: What every virtual environment has.
_ALWAYS = {"pip", "setuptools"}
_SITE = """from importlib.machinery import PathFinder

ABSENT = {absent!r}
find = PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ABSENT else find(name, path, target)


PathFinder.find_spec = find_spec
"""


def walls(folder: Path, requirements: Iterable[str]) -> Set[str]:
    """Write into `folder` what, on PYTHONPATH, hides all but what `requirements` bring; returns the modules hidden.

    Args:
        requirements: as in a requirements file, or as a distribution declares them.
    """
    there = _closure({_name(line) for line in requirements if re.match(r"[A-Za-z0-9]", line)} | _ALWAYS)
    installed = metadata.packages_distributions()
    absent = {top for top, names in installed.items() if not there & {_name(name) for name in names}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE.format(absent=absent))
    return absent


def _closure(names: Set[str]) -> Set[str]:
    """`names` and all that they require in turn, without extras."""
    found: Set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform or Python
            continue
        names |= {_name(one) for one in required if "extra ==" not in one} - found
    return found


def _name(requirement: str) -> str:
    """The normalised name in a requirement."""
    (name,) = re.findall(r"^[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()
