"""Files out of packages, from an index of the tests' own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Callable

import pytest
from click.testing import CliRunner

from models import samples
from models.registry import package_file
from tests.support.servers import index, sdist, serving, status, wheel
from worker.errors import ModelError

DATA = b"a photograph"
SHA256 = hashlib.sha256(DATA).hexdigest()
WHEEL = wheel({"thing/data/a.bin": DATA, "thing-1.0.dist-info/METADATA": b"Name: thing\nVersion: 1.0\n"})
SDIST = sdist("thing-1.0", {"PKG-INFO": b"", "setup.py": b"raise SystemExit('built')", "data/a.bin": DATA})
OTHER = wheel({"thing/data/a.bin": b"newer"})


@pytest.fixture
def use_index(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point pip's settings, and nothing else, to an index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return lambda url: monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")


PACKAGES = index(
    {
        "thing": {
            "thing-1.0-py3-none-any.whl": WHEEL,
            "thing-1.0.tar.gz": SDIST,
            "thing-2.0-py3-none-any.whl": OTHER,
        }
    }
)


def test_a_file_of_a_wheel_and_of_a_source_distribution(use_index: Callable[[str], None]) -> None:
    with serving(PACKAGES) as server:
        use_index(server.url)
        assert package_file("thing==1.0", "thing/data/a.bin", SHA256, wheel=True) == DATA
        assert package_file("thing==1.0", "data/a.bin", SHA256, wheel=False) == DATA  # unpacked, never built


@pytest.mark.parametrize(
    ("requirement", "member", "message"),
    [
        ("thing==3.0", "thing/data/a.bin", "index has no thing==3.0"),
        ("lost==1.0", "thing/data/a.bin", "index has no lost==1.0"),
        ("thing==1.0", "thing/lost.bin", "thing==1.0 cannot be downloaded .*lost.bin"),
        ("thing==2.0", "thing/data/a.bin", f"a.bin of thing==2.0 has SHA-256 .*, expected {SHA256}; it was not used"),
    ],
)
def test_faults(requirement: str, member: str, message: str, use_index: Callable[[str], None]) -> None:
    with serving(PACKAGES) as server:
        use_index(server.url)
        with pytest.raises(ModelError, match=message):
            package_file(requirement, member, SHA256, wheel=True)


def test_a_package_that_is_not_what_the_index_says(use_index: Callable[[str], None]) -> None:
    with serving(PACKAGES) as good:
        name = "thing-1.0-py3-none-any.whl"
        page = f'<a href="{good.url}/files/thing/{name}#sha256={"0" * 64}">{name}</a>'
        with serving(lambda handler, _: handler.answer(200, page.encode(), Content_Type="text/html")) as server:
            use_index(server.url)
            with pytest.raises(ModelError, match="cannot be downloaded"):
                package_file("thing==1.0", "thing/data/a.bin", SHA256, wheel=True)


def test_no_index_at_all(use_index: Callable[[str], None]) -> None:
    with serving(status(200)) as server:
        use_index(server.url)
    with pytest.raises(ModelError, match=r"thing==1\.0"):
        package_file("thing==1.0", "thing/data/a.bin", SHA256, wheel=True)


def test_links_beside_the_index_are_found(
    tmp_path: Path, use_index: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thing-1.0-py3-none-any.whl").write_bytes(WHEEL)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with serving(index({})) as server:
        use_index(server.url)
        assert package_file("thing==1.0", "thing/data/a.bin", SHA256, wheel=True) == DATA


def test_samples_are_brought_once_and_damaged_ones_again(
    tmp_path: Path, use_index: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "SAMPLES", (("thing==1.0", "thing/data/a.bin", SHA256),))
    with serving(PACKAGES) as server:
        use_index(server.url)
        for damage in (None, b"half"):
            if damage:
                (tmp_path / "new" / "a.bin").write_bytes(damage)
            assert CliRunner().invoke(samples.main, [str(tmp_path / "new")]).exit_code == 0
            assert (tmp_path / "new" / "a.bin").read_bytes() == DATA
        asked = len(server.requests)
        assert CliRunner().invoke(samples.main, [str(tmp_path / "new")]).exit_code == 0
        assert len(server.requests) == asked
    (tmp_path / "new" / "a.bin").unlink()
    failed = CliRunner().invoke(samples.main, [str(tmp_path / "new")])
    assert failed.exit_code == 1
    assert failed.output.startswith("models.samples: ")
    assert list((tmp_path / "new").iterdir()) == []
