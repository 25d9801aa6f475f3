"""The commands of docs/models.md, as they stand there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, List

import pytest
from click.testing import CliRunner, Result

import models.convert.__main__
import models.fetch
import models.inspect
from models.catalog import find_entry, read_catalog
from tests.support import ROOT
from tests.support.catalog import GRAPH, small_catalog
from tests.support.documents import example


def _commands(block: str, module: Any) -> List[List[str]]:
    """The arguments of each of a block's lines, all of which call `module`."""
    lines = [shlex.split(line) for line in block.splitlines()]
    name = module.__name__.replace(".__main__", "")
    assert all(words[:3] == [".venv/bin/python", "-m", name] for words in lines)
    return [words[3:] for words in lines]


def _run(module: Any, arguments: List[str], **variables: str) -> Result:
    return CliRunner().invoke(module.main, arguments, env=variables)


def test_inspect(thin_net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    for arguments in _commands(example("docs/models.md", "sh", "models.inspect"), models.inspect):
        done = _run(models.inspect, arguments)
        assert done.exit_code == 0, done.output
        assert "GFLOP" in done.output
    assert (tmp_path / "live.png").stat().st_size > 10_000


def test_fetch(thin_net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thin, cmu = _commands(example("docs/models.md", "sh", "models.fetch"), models.fetch)
    assert "here and intact" in _run(models.fetch, thin).output
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "graph.pb").write_bytes(GRAPH)
    entry = find_entry("small", small_catalog(tmp_path, "urls = []", confirm=True))  # whose licence may be accepted
    monkeypatch.setattr(models.fetch, "find_entry", lambda *_: entry)
    done = _run(models.fetch, cmu, POSE_MODELS_DIR=str(tmp_path))
    assert done.exit_code == 0, done.output
    assert f"{tmp_path}/{cmu[0]}: fetched and verified (licence: Test Licence)" in done.output


def test_convert_looks_at_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((file, *arguments),) = _commands(
        example("docs/models.md", "sh", "models.convert pose_iter"), models.convert.__main__
    )
    (tmp_path / file).write_bytes(b"something else")
    done = _run(models.convert.__main__, [file, *arguments])
    assert done.exit_code == 1
    row = next(line for line in (ROOT / "docs/models.md").read_text().splitlines() if line.startswith(f"| `{file}`"))
    assert f"expected SHA-256 {row.split('`')[5]} for a file of this name" in done.output


@pytest.mark.parametrize("name", sorted(read_catalog()))
def test_the_table_says_what_the_catalogue_does(name: str) -> None:
    lines = (ROOT / "docs/models.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith(f"| `{name}`"))  # of the first table
    entry = find_entry(name)
    assert f"| {entry.accuracy or 'not published'} |" in row
    assert f"| {entry.gflop} | {'CMU' if entry.confirm else entry.licence} |" in row
    for file in (file for file in entry.files if file.checksum and not file.package):
        (row,) = [line for line in lines if line.startswith(f"| `{file.name}`")]
        assert row.endswith(f"| `{name}` | {file.checksum.replace(' ', ' `')}` |")


def test_make_caffe2_test_is_run_where_everything_is() -> None:
    line = example("docs/models.md", "sh", "make caffe2-test").strip()
    assert line in (ROOT / ".ci/run").read_text()
