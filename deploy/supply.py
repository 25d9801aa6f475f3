"""The supply chain of the runtime requirements: ``lock``, ``check``, ``audit``, ``sbom`` (see the Makefile).

requirements.lock has every package with its version and hashes, for Python 3.11 to 3.13 on every platform. torch has
several builds, which differ in a local version (``2.13.0+cpu``) that the registry does not list. So requirements.lock
also allows the build that pip finds here. requirements-cpu.lock allows only that build, without the gigabytes of CUDA.
If pip finds no such build, the locks keep the one that they have, as long as torch's version is the same.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Set

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS, LOCK, CPU_LOCK = "requirements.txt", "requirements.lock", "requirements-cpu.lock"
SBOM = "sbom.cdx.json"
_BIN = Path(sys.executable).parent
_HEAD = f"# Made by `make lock` from {REQUIREMENTS}"
#: Packages that only torch's CUDA build needs.
_CUDA = re.compile(r"(nvidia-|cuda-|triton)")
#: pip reports what it would install, and installs nothing.
_ASK = ("--dry-run", "--ignore-installed", "--quiet", "--report=-")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def pins(text: str) -> Dict[str, str]:
    """The version of each package in a lock or in requirements; the last one if a package has several."""
    return {name.lower(): version for name, version in _PIN.findall(text)}


def entries(text: str) -> List[str]:
    """A lock's requirements, each with its hashes."""
    return [entry.strip() for entry in re.split(r"\n(?=[A-Za-z0-9])", text) if "==" in entry and "--hash" in entry]


def lock() -> None:
    """Write both locks."""
    wanted = pins((ROOT / REQUIREMENTS).read_text())
    options = [
        "--universal",
        "--python-version=3.11",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--no-config",
    ]
    done = _run("uv", "pip", "compile", REQUIREMENTS, "--quiet", "--no-emit-index-url", *options)
    whole, build = entries(done), _other_build(wanted["torch"])
    light = [entry for entry in whole if not _CUDA.match(entry) or next(iter(pins(entry))) in wanted]
    _write(LOCK, [_admitting(entry, build) for entry in whole])
    _write(CPU_LOCK, [build if entry.startswith("torch==") else entry for entry in light])


def _write(name: str, found: List[str]) -> None:
    (ROOT / name).write_text("\n".join([_HEAD, *found]) + "\n")
    print(f"{name}: {len(found)} packages")


def _other_build(version: str) -> str:
    """The lock's entry of the torch build with a local version: the one that pip finds here, or else the lock's own."""
    found = json.loads(_run("pip", "install", *_ASK, "--no-deps", f"torch=={version}"))["install"][0]
    if "+" in found["metadata"]["version"]:
        digest = found["download_info"]["archive_info"]["hashes"]["sha256"]
        return f"torch=={found['metadata']['version']} \\\n    --hash=sha256:{digest}"
    for known in entries((ROOT / CPU_LOCK).read_text()):
        if known.startswith(f"torch=={version}+"):
            return known
    raise SystemExit(f"pip finds no CPU build of torch {version}; configure a package index that has one.")


def _admitting(entry: str, build: str) -> str:
    """`entry`; if it is torch's, also with the hashes of `build`."""
    if not entry.startswith("torch=="):
        return entry
    hashes = sorted({*_HASH.findall(entry), *_HASH.findall(build)})
    return " \\\n    --hash=".join([entry.split("\\")[0].strip(), *hashes])


def check() -> None:
    """Let pip compare the hash of every package that this platform needs; nothing is installed.

    The lock is CPU_LOCK, or the one that POSE_LOCK names.
    """
    name = os.environ.get("POSE_LOCK", CPU_LOCK)
    given = _run("pip", "install", *_ASK, "--require-hashes", "-r", name)
    print(f"{name}: pip accepts {len(json.loads(given)['install'])} packages by their hashes")


def audit() -> None:
    """Look for known vulnerabilities of the locked packages. Fails if there are any; says if the database is away."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", f"--output={report}"]
        command = [_BIN / "pip-audit", f"--requirement={ROOT / LOCK}", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        found = json.loads(report.read_text())["dependencies"] if report.exists() and report.stat().st_size else []
    verdict(found, done.stderr)


def verdict(found: List[dict], said: str) -> None:
    """Print what pip-audit has `found` for each package; ends with status 1 if a package is vulnerable."""
    asked = [one for one in found if "skip_reason" not in one]
    bad = [(one["name"], one["version"], flaw) for one in asked for flaw in one["vulns"]]
    for name, version, flaw in bad:
        fixed = ", ".join(flaw.get("fix_versions") or []) or "no version yet"
        print(f"audit: {name} {version} has {flaw['id']}, mended in {fixed}")
    if not asked:
        why = "it knows none of the packages" if found else (said.strip().splitlines() or ["no answer"])[-1][:200]
        print(f"audit: nothing was checked, for the database of vulnerabilities is out of reach ({why})")
        return
    print(f"audit: {len(asked)} packages checked, {len(found) - len(asked)} unknown there, {len(bad)} vulnerabilities")
    if bad:
        raise SystemExit(1)


def sbom() -> None:
    """Write the bill of materials (CycloneDX 1.6, JSON) of the locked packages, and check that none is missing."""
    options = ["--pyproject=pyproject.toml", "--of=JSON", "--sv=1.6", "--output-reproducible", "--validate"]
    _run("cyclonedx-py", "requirements", LOCK, *options, f"--output-file={SBOM}")
    document = json.loads((ROOT / SBOM).read_text())
    listed: Set[str] = {f"{one['name'].lower()}=={one['version']}" for one in document["components"]}
    missing = {f"{name.lower()}=={version}" for name, version in _PIN.findall((ROOT / LOCK).read_text())} - listed
    if document["bomFormat"] != "CycloneDX" or missing:
        raise SystemExit(f"sbom: {SBOM} lacks {', '.join(sorted(missing)) or 'its format'}")
    print(f"sbom: {SBOM} lists {len(listed)} packages")


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run([_BIN / program, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{program} ended with status {done.returncode}; see its output above.")
    return done.stdout


if __name__ == "__main__":
    {"lock": lock, "check": check, "audit": audit, "sbom": sbom}[sys.argv[1]]()
