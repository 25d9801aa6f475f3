"""What a GPU machine without a network needs beside the checkout, in one archive.

    make gpu-bundle     (or: python -m benchmarks.bundle out/gpu-bundle.tar)

Wheels of the locked packages for Python 3.12 on x86_64 Linux, and of pytest; the default net; the sample photographs.
What is not in it the machine must have: PyTorch with its CUDA, and the packages of PROVIDED, which are large.
benchmarks/gpu_ready.py unpacks it there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Iterator, List, Sequence

ROOT = Path(__file__).resolve().parent.parent
#: Bytes that the archive may have: it has to travel.
LIMIT = 40_000_000
#: Python and platform of the GPU machine. pip takes each tag as it is, so older ones are named, too.
PYTHON = "3.12"
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17, 12, 5)),
    *(f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")),
)
#: Locked packages that stay behind: PyTorch and what only PyTorch needs; an engine for CPUs; and what would fill the
#: archive alone (numpy 17 MB, OpenCV and llvmlite 60 MB each; numba must fit the llvmlite that is there).
PROVIDED = re.compile(
    r"(torch|triton|cuda-.*|nvidia-(?!ml-py).*|sympy|mpmath|networkx|jinja2|markupsafe|setuptools"
    r"|openvino.*|numpy|opencv-python-headless|llvmlite|numba)"
)
#: What the tests need, at the versions of requirements-dev.txt.
TESTS = ("pytest", "pytest-timeout", "hypothesis")
FILES = ("models/mobilenet_thin/*", "samples/*")


def wanted(lock: str) -> str:
    """The entries of a lock, with their hashes, whose wheels go into the archive."""
    entries = [entry for entry in re.split(r"\n(?=[^ #])", lock) if re.match(r"[a-z0-9.-]+==", entry)]
    return "\n".join(entry for entry in entries if not PROVIDED.fullmatch(entry.split("==")[0]))


def pack(target: Path, members: Sequence[Path], root: Path) -> int:
    """Write the files `members`, which lie below `root`, into the archive `target`; returns its bytes.

    Raises:
        SystemExit: it is larger than LIMIT; the largest members are named, and nothing is left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with tarfile.open(part, "w", dereference=True) as archive:
        for member in members:
            archive.add(member, str(member.relative_to(root)))
    size = part.stat().st_size
    if size >= LIMIT:
        part.unlink()
        largest = sorted(members, key=lambda member: -member.stat().st_size)[:3]
        names = ", ".join(f"{member.name} ({member.stat().st_size / 1e6:.0f} MB)" for member in largest)
        raise SystemExit(
            f"the bundle has {size / 1e6:.1f} MB, of {LIMIT / 1e6:.0f} at most; its largest files are {names}: "
            "name what the GPU machine has anyway in PROVIDED of benchmarks/bundle.py"
        )
    part.replace(target)
    return size


def main() -> None:
    """Download, pack, and say what has become of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    target = parser.parse_args().archive
    with tempfile.TemporaryDirectory(prefix="pose-bundle-") as name:
        folder = Path(name)
        _download(folder / "wheels")
        for pattern in FILES:
            for path in _found(pattern):
                copy = folder / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        members = sorted(path for path in folder.rglob("*") if path.is_file())
        size = pack(target, members, folder)
    wheels = sum(member.suffix == ".whl" for member in members)
    print(f"{target}: {size / 1e6:.1f} MB, {wheels} wheels for Python {PYTHON}, the net and the samples")
    print(f"on the GPU machine, in a checkout: python3 benchmarks/gpu_ready.py {target.name}")


def _found(pattern: str) -> Iterator[Path]:
    paths = [path for path in ROOT.glob(pattern) if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise SystemExit(f"{pattern} is not there; run: make gpu-bundle, which fetches it")
    yield from sorted(paths)


def _download(folder: Path) -> None:
    """Put the wheels into `folder`; nothing is installed."""
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(wanted((ROOT / "requirements.lock").read_text()))
        file.flush()
        _pip(folder, ["--no-deps", "--require-hashes", "-r", file.name])
    _pip(folder, [f"{name}=={pins[name]}" for name in TESTS])


def _pip(folder: Path, what: List[str]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(folder)]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*command, "--python-version", PYTHON, "--implementation", "cp", *platforms, *what])
    if done.returncode:
        raise SystemExit("pip could not download the wheels; what it said stands above")


if __name__ == "__main__":
    main()
