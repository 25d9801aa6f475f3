"""A stand-in for a container: a mount namespace whose root is read-only, a user with no rights, the image's own words.

Made with Linux's own tools (unshare, setpriv, nsenter) where the tests run as root; else only the words are its.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from tests.support import ROOT

_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
_NOBODY += ["--inh-caps=-all", "--bounding-set=-all"]


class Image(NamedTuple):
    """What the last stage of a Dockerfile says."""

    environment: Dict[str, str]
    entry_point: List[str]
    command: List[str]
    health_check: List[str]
    user: str
    volumes: List[str]


def instructions(dockerfile: Path) -> List[List[str]]:
    """Pairs of an instruction and the rest of its line, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", " ")
    return [line.split(None, 1) for line in text.splitlines() if line.strip()]


def image(dockerfile: Path) -> Image:
    """The image that `dockerfile` makes."""
    told: Dict[str, str] = {}
    environment: Dict[str, str] = {}
    for name, rest in instructions(dockerfile):
        if name == "FROM":
            told, environment = {}, {}
        elif name == "ENV":
            environment.update(pair.split("=", 1) for pair in shlex.split(rest))
        told[name] = rest
    health = json.loads(told["HEALTHCHECK"].partition("CMD ")[2])
    entry, command, volumes = (json.loads(told[name]) for name in ("ENTRYPOINT", "CMD", "VOLUME"))
    return Image(environment, entry, command, health, told["USER"], volumes)


@lru_cache(maxsize=1)
def walls() -> bool:
    """Whether a box can be closed here."""
    tools = all(shutil.which(tool) for tool in ("unshare", "setpriv", "nsenter"))
    return tools and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def boxed(command: List[str], given: Path) -> List[str]:
    """`command`, to be run by nobody where only /tmp, /run/pose and /var/cache/pose can be written.

    Args:
        given: a folder that everybody can read; its ``secrets`` are at /run/secrets/pose, its ``site`` is at /run/site,
            its ``cache`` is copied.
    """
    if not walls():
        return command
    lines = [
        "set -e",
        "mount --make-rprivate /",
        "mount -t tmpfs tmpfs /mnt",
        "mount -t tmpfs -o mode=755 tmpfs /run",
        "mkdir -p /run/pose /run/secrets/pose",
        f"cp -r {given}/site /run/site",
        f"cp -r {given}/secrets/. /run/secrets/pose",
        "mount -t tmpfs -o mode=755 tmpfs /var/cache",
        f"cp -r {given}/cache /var/cache/pose",
        "chown -R 65534:65534 /run/pose /run/secrets/pose /var/cache/pose",
        *_covered(_closed(Path(sys.base_prefix)), Path(sys.base_prefix)),
        *_covered(Path("/tmp"), ROOT, "-o mode=1777"),
        f"cd {ROOT}",
        # Busy while anything at all is being written there.
        "for try in $(seq 50); do mount -o remount,bind,ro / 2>/dev/null && break; sleep 0.1; done",
        "! touch /box 2>/dev/null",
        f"exec {shlex.join([*_NOBODY, *command])}",
    ]
    return ["unshare", "--mount", "sh", "-c", "\n".join(lines)]


def inside(pid: int, command: List[str]) -> List[str]:
    """`command`, to be run beside process `pid` in its box."""
    return ["nsenter", "--mount", f"--target={pid}", f"--wd={ROOT}", *_NOBODY, *command] if walls() else command


def _closed(path: Path) -> Optional[Path]:
    """The folder above `path` that only its owner may enter, if there is one."""
    return next((one for one in reversed(path.parents) if not one.stat().st_mode & 0o001), None)


def _covered(folder: Optional[Path], kept: Path, options: str = "-o mode=755") -> List[str]:
    """An empty file system over `folder`, in which nothing but `kept` is left."""
    if folder is None:
        return []
    cover = f"mount -t tmpfs {options} tmpfs {folder}"
    if folder not in kept.parents:
        return [cover]
    aside = f"/mnt/{folder.name}"
    bind = f"mkdir -p {aside} {kept} && mount --bind"
    return [f"{bind} {kept} {aside}", cover, f"{bind} {aside} {kept}"]


def numba_cache(folder: Path) -> None:
    """Put what numba has compiled beside the sources where it looks if NUMBA_CACHE_DIR is `folder`."""
    from numba.core.caching import UserProvidedCacheLocator  # the name of the subfolder is its own affair

    source = ROOT / "worker" / "pose"
    name: Any = UserProvidedCacheLocator.get_suitable_cache_subpath(os.fspath(source / "peaks.py"))
    target = folder / name
    target.mkdir(parents=True)
    for path in (source / "__pycache__").glob("*.nb?"):
        shutil.copy2(path, target)
