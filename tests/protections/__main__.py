"""Switches off every protection in turn, in a copy of the project, and sees its test fail.

``python -m tests.protections`` (``make protections``) prints the list as it goes; a word chooses some of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List, Optional, Sequence

from tests.protections.guards import GUARDS
from tests.protections.listed import PROTECTIONS, Protection
from tests.support import ROOT

#: The exit status of pytest when tests have failed, rather than been absent or interrupted; below 0: of a signal.
_FAILED = 1
#: Folders that the copy needs beside what git knows.
_BROUGHT = ("models/mobilenet_thin", "samples")


def seen_to_fail(protection: Protection, copy: Path) -> Optional[str]:
    """How the test fails in `copy` while the protection is switched off, in pytest's line; None if it does not."""
    path = copy / protection.file
    source = path.read_text()
    changed = source
    for before, after in protection.off:
        if changed.count(before) != 1:
            raise SystemExit(f"{protection.file} does not have {before!r} once; mend the entry {protection.name!r}.")
        changed = changed.replace(before, after)
    path.write_text(changed)
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", protection.test]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    finally:
        path.write_text(source)
    if done.returncode > _FAILED:
        raise SystemExit(f"{protection.test} cannot be run: {done.stdout[-2000:]}")
    if done.returncode == 0:
        return None
    told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return max(told) if told else f"pytest ended with {done.returncode}"


def _copy(target: Path) -> Path:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    for name in _BROUGHT:
        shutil.copytree(ROOT / name, target / name, dirs_exist_ok=True)
    return target


def main(words: Sequence[str]) -> int:
    """Switch off those whose line has one of `words`, or all; 1 if a test did not mind."""
    unnoticed: List[str] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = _copy(Path(folder))
        for one in (*PROTECTIONS, *GUARDS):
            if words and not any(word in f"{one.name} {one.file} {one.test}" for word in words):
                continue
            begun = time.monotonic()
            failed = seen_to_fail(one, copy)
            unnoticed += [] if failed else [one.name]
            mark = "✓" if failed else "✗ unnoticed:"
            print(f"{mark} {one.name} ({one.file}) → {one.test} [{time.monotonic() - begun:.0f} s]", flush=True)
            if failed:
                print(f"  {failed:.200}", flush=True)
    print(f"{len(unnoticed)} unnoticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
