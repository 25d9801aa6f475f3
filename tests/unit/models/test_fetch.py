"""Bringing a net here, from an index and from URLs of the tests' own."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from click.testing import CliRunner

from models import fetch as module
from models.catalog import find_entry
from models.fetch import fetch
from tests.support.catalog import GRAPH, SHA256, small_catalog
from tests.support.graphs import pose_graph
from tests.support.servers import Server, index, sdist, serving, status, whole
from worker.engine import load, read_manifest
from worker.errors import ModelError

FILES = ("predict_net.pb", "init_net.pb", "model.json")


@pytest.fixture
def package_index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An index with the package small-net 1.0, and pip's settings pointing to it."""
    package = sdist("small-net-1.0", {"PKG-INFO": b"Name: small-net\nVersion: 1.0\n", "nets/graph.pb": GRAPH})
    with serving(index({"small-net": {"small-net-1.0.tar.gz": package}})) as server:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        yield server


@pytest.fixture
def catalog(tmp_path: Path, package_index: Server) -> Path:
    return small_catalog(tmp_path, 'package = "small-net==1.0"\nmember = "nets/graph.pb"')


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """A catalogue whose net comes from nowhere but the downloads folder, where its file is."""
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "graph.pb").write_bytes(GRAPH)
    return small_catalog(tmp_path, "urls = []")


def test_a_net_out_of_a_package(catalog: Path, tmp_path: Path, package_index: Server) -> None:
    assert fetch("small", tmp_path, catalog=catalog)
    directory = tmp_path / "small"
    assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)
    manifest = read_manifest(directory)
    assert (manifest.licence, manifest.source) == ("Test Licence", "small-net 1.0, nets/graph.pb")
    load(directory)
    # the original stays beside it, and nothing else
    assert [path.name for path in (tmp_path / "downloads").iterdir() if path.name[0] != "."] == ["graph.pb"]
    assert (tmp_path / "downloads" / "graph.pb").read_bytes() == GRAPH
    # a second call does nothing
    asked = len(package_index.requests)
    before = {name: (directory / name).stat().st_mtime_ns for name in FILES}
    assert not fetch("small", tmp_path, catalog=catalog)
    assert {name: (directory / name).stat().st_mtime_ns for name in FILES} == before
    assert len(package_index.requests) == asked


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage", [Path.unlink, _flip, lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda p: p.write_bytes(b"")]
)
def test_a_damaged_net_is_noticed_and_made_again(
    damage: Callable[[Path], Any], name: str, by_hand: Path, tmp_path: Path
) -> None:
    fetch("small", tmp_path, catalog=by_hand)
    whole_again = {name: (tmp_path / "small" / name).read_bytes() for name in FILES}
    damage(tmp_path / "small" / name)
    assert fetch("small", tmp_path, catalog=by_hand)
    assert {name: (tmp_path / "small" / name).read_bytes() for name in FILES} == whole_again


def test_a_damaged_download_is_fetched_again(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "graph.pb").write_bytes(GRAPH[:-1])
    assert fetch("small", tmp_path, catalog=catalog)
    assert (tmp_path / "downloads" / "graph.pb").read_bytes() == GRAPH


def test_a_changed_catalogue_makes_the_net_again(by_hand: Path, tmp_path: Path) -> None:
    fetch("small", tmp_path, catalog=by_hand)
    by_hand.write_text(by_hand.read_text().replace("mean = [0, 0, 0]", "mean = [1, 2, 3]"))
    assert fetch("small", tmp_path, catalog=by_hand)
    assert read_manifest(tmp_path / "small").input.mean == (1, 2, 3)


def test_offline_the_manual_route_is_told_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package_index: Server
) -> None:
    catalog = small_catalog(tmp_path, 'package = "small-net==1.0"\nmember = "nets/graph.pb"')
    with serving(status(200)) as gone:
        monkeypatch.setenv("PIP_INDEX_URL", f"{gone.url}/simple")
    with pytest.raises(ModelError) as caught:
        fetch("small", tmp_path, catalog=catalog)
    sentence = str(caught.value)
    for word in ("'small' could not be fetched", "graph.pb", str(len(GRAPH)), SHA256, str(tmp_path / "downloads")):
        assert word in sentence
    assert "\n" not in sentence
    assert not (tmp_path / "small").exists()
    (tmp_path / "downloads" / "graph.pb").write_bytes(GRAPH)
    assert fetch("small", tmp_path, catalog=catalog)
    load(tmp_path / "small")


def test_a_file_put_there_by_hand_that_is_another_one(tmp_path: Path) -> None:
    catalog = small_catalog(tmp_path, "urls = []")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "graph.pb").write_bytes(b"another")
    with pytest.raises(ModelError, match=f"graph.pb has SHA-256 {hashlib.sha256(b'another').hexdigest()}, expected"):
        fetch("small", tmp_path, catalog=catalog)
    assert (tmp_path / "downloads" / "graph.pb").read_bytes() == b"another"  # it is the user's


def test_a_file_whose_authors_say_its_md5(tmp_path: Path) -> None:
    with serving(whole(GRAPH[::-1])) as other, serving(whole(GRAPH)) as right:
        catalog = small_catalog(tmp_path, f"urls = {[f'{server.url}/graph.pb' for server in (other, right)]}")
        md5 = hashlib.md5(GRAPH).hexdigest()
        catalog.write_text(catalog.read_text().replace(f'sha256 = "{SHA256}"', f'md5 = "{md5}"'))
        assert fetch("small", tmp_path, catalog=catalog)
        assert [len(server.requests) for server in (other, right)] == [1, 1]
    assert read_manifest(tmp_path / "small").source == f"graph.pb, MD5 {md5}"
    (tmp_path / "small" / "model.json").unlink()
    (tmp_path / "downloads" / "graph.pb").write_bytes(b"another")
    with pytest.raises(ModelError, match=f"has MD5 {hashlib.md5(b'another').hexdigest()}, expected MD5 {md5}"):
        fetch("small", tmp_path, catalog=catalog)


def test_a_file_whose_authors_say_no_checksum(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is taken if it holds what the net needs, and the record says what it was."""
    with serving(whole(GRAPH)) as server:
        catalog = small_catalog(tmp_path, f'urls = ["{server.url}/graph.pb"]')
        lines = catalog.read_text().splitlines()
        catalog.write_text(
            "\n".join(line for line in lines if not line.startswith(("sha256", "bytes"))) + "\nbytes = 0"
        )
        assert fetch("small", tmp_path, catalog=catalog)
        assert f"graph.pb: it has SHA-256 {SHA256}; its authors say no checksum" in caplog.text
        assert read_manifest(tmp_path / "small").source == f"graph.pb, SHA-256 {SHA256}"
        (tmp_path / "small" / "model.json").unlink()
        assert fetch("small", tmp_path, catalog=catalog)  # from what is here
        assert len(server.requests) == 1
    (tmp_path / "small" / "model.json").unlink()
    (tmp_path / "downloads" / "graph.pb").write_bytes(b"another")
    with pytest.raises(ModelError, match="graph"):
        fetch("small", tmp_path, catalog=catalog)
    assert not (tmp_path / "small" / "model.json").exists()


def test_sources_are_tried_in_order(tmp_path: Path) -> None:
    with serving(status(404)) as first, serving(whole(GRAPH[::-1])) as second, serving(whole(GRAPH)) as third:
        urls = [f"{server.url}/graph.pb" for server in (first, second, third)]
        assert fetch("small", tmp_path, catalog=small_catalog(tmp_path, f"urls = {urls}"))
        assert [len(server.requests) for server in (first, second, third)] == [1, 1, 1]
    load(tmp_path / "small")


def test_all_sources_failing_are_all_told(tmp_path: Path) -> None:
    with serving(status(404)) as first, serving(whole(GRAPH[::-1])) as second:
        urls = [f"{server.url}/graph.pb" for server in (first, second)]
        with pytest.raises(ModelError) as caught:
            fetch("small", tmp_path, catalog=small_catalog(tmp_path, f"urls = {urls}"))
    sentence = str(caught.value)
    assert f"{urls[0]} answered 404" in sentence
    assert f"{urls[1]} sent {len(GRAPH)} bytes with SHA-256" in sentence


def test_a_licence_must_be_accepted_before_anything_is_downloaded(tmp_path: Path) -> None:
    with serving(whole(GRAPH)) as server:
        catalog = small_catalog(tmp_path, f'urls = ["{server.url}/graph.pb"]', confirm=True)
        with pytest.raises(ModelError, match=r"under the Test Licence; .* --accept-licence or POSE_ACCEPT_LICENCE"):
            fetch("small", tmp_path, catalog=catalog)
        assert server.requests == []
        assert fetch("small", tmp_path, catalog=catalog, accept_licence=True)
        assert not fetch("small", tmp_path, catalog=catalog)  # it is here: nothing to accept


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_the_command_accepts_by_flag_and_by_variable(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "graph.pb").write_bytes(GRAPH)
    entry = find_entry("small", small_catalog(tmp_path, "urls = []", confirm=True))
    monkeypatch.setattr(module, "find_entry", lambda *_: entry)
    arguments = ["small", "--models-dir", str(tmp_path)]
    refused = CliRunner().invoke(module.main, arguments)
    assert refused.exit_code == 1
    assert "models.fetch: The net 'small' is under the Test Licence; if you agree" in refused.output
    environment = {"POSE_ACCEPT_LICENCE": "1"} if how == "variable" else {}
    accepted = CliRunner().invoke(module.main, arguments + ["--accept-licence"] * (how == "flag"), env=environment)
    assert accepted.exit_code == 0, accepted.output
    assert "fetched and verified (licence: Test Licence)" in accepted.output
    again = CliRunner().invoke(module.main, arguments)
    assert "here and intact" in again.output


def test_callers_at_the_same_time_take_turns(catalog: Path, tmp_path: Path, package_index: Server) -> None:
    done: List[bool] = []
    threads = [
        threading.Thread(target=lambda: done.append(fetch("small", tmp_path, catalog=catalog))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False, False, False, True]
    assert sum(path.endswith(".tar.gz") for path, _ in package_index.requests) == 1


def test_a_graph_that_does_not_convert_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = pose_graph(extra=["Tanh"])
    catalog = small_catalog(tmp_path, "urls = []")
    catalog.write_text(catalog.read_text().replace(SHA256, hashlib.sha256(bad).hexdigest()))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "graph.pb").write_bytes(bad)
    with pytest.raises(ModelError, match="'extra0' of type Tanh"):
        fetch("small", tmp_path, catalog=catalog)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog.toml", "downloads"]


def test_a_folder_that_cannot_be_written(by_hand: Path, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"cannot be converted to .*small \(.*; check the path and the disk\.$"):
        fetch("small", tmp_path, catalog=by_hand)
    assert (tmp_path / "small").read_text() == "a file where the folder should be"


def test_an_unknown_net() -> None:
    with pytest.raises(ModelError, match=r"no net 'foo' in the catalogue; it has .*cmu_coco, .*mobilenet_thin\.$"):
        fetch("foo")
