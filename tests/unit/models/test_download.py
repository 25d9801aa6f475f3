"""Large files over HTTP: cut off, stalled, wrong, resumed."""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.catalog import SourceFile
from models.download import ATTEMPTS, download
from tests.support.servers import cut, serving, stall, status, whole
from worker.errors import ModelError

DATA = np.random.default_rng(0).bytes(3_000_000)
FILE = SourceFile(name="a.bin", format="caffe", sha256=hashlib.sha256(DATA).hexdigest(), bytes=len(DATA))
UNSIZED = FILE.model_copy(update={"bytes": 0})


def _download(url: str, folder: Path, file: SourceFile = FILE, stall_s: float = 5.0) -> bytes:
    download(file, url, folder / "a.bin", stall_s=stall_s, pause_s=0.001)
    assert not (folder / "a.bin.part").exists()
    return (folder / "a.bin").read_bytes()


@pytest.mark.parametrize("file", [FILE, UNSIZED])
def test_a_file_in_one_go(file: SourceFile, tmp_path: Path) -> None:
    with serving(whole(DATA)) as server:
        assert _download(f"{server.url}/x/a.bin", tmp_path, file) == DATA
    assert server.requests == [("/x/a.bin", "")]


@pytest.mark.parametrize("file", [FILE, UNSIZED])
def test_a_cut_connection_is_resumed_where_it_broke(file: SourceFile, tmp_path: Path) -> None:
    with serving(cut(DATA, 1_000_000), cut(DATA, 500_000), whole(DATA)) as server:
        assert _download(server.url, tmp_path, file) == DATA
    assert [asked for _, asked in server.requests] == ["", "bytes=1000000-", "bytes=1500000-"]


def test_a_stalled_connection_is_made_anew(tmp_path: Path) -> None:
    with serving(stall(DATA, 1000, 1.0), whole(DATA)) as server:
        assert _download(server.url, tmp_path, stall_s=0.2) == DATA
    assert server.requests[1][1] == "bytes=1000-"


def test_a_source_that_drips_is_given_up(tmp_path: Path) -> None:
    """A byte now and then is never a stall, and would take years."""

    def drip(handler: Any, asked: str) -> None:
        start = int(asked[len("bytes=") :].rstrip("-")) if asked else 0
        handler.answer(206, length=len(DATA) - start, Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        with contextlib.suppress(OSError):
            for offset in range(start, len(DATA)):
                handler.wfile.write(DATA[offset : offset + 1])
                time.sleep(0.02)

    with serving(drip) as server:
        with pytest.raises(
            ModelError, match=r"cannot be downloaded \(it sent \d+ bytes in 0.2 s\); \d+ bytes are kept"
        ):
            _download(server.url, tmp_path, stall_s=0.2)
        assert len(server.requests) == ATTEMPTS
    part = (tmp_path / "a.bin.part").read_bytes()
    assert part == DATA[: len(part)]


def test_headers_that_are_no_numbers(tmp_path: Path) -> None:
    def vague(handler: Any, _: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "some")
        handler.end_headers()

    with serving(vague, whole(DATA)) as server:
        assert _download(server.url, tmp_path) == DATA


def test_a_redirect_is_followed_with_the_range(tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA[:1_000_000])
    with serving(whole(DATA)) as there, serving(lambda h, _: h.answer(302, Location=f"{there.url}/elsewhere")) as here:
        assert _download(here.url, tmp_path) == DATA
        assert there.requests == [("/elsewhere", "bytes=1000000-")]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "/"])
def test_a_redirect_to_a_file_or_in_a_circle_ends_it(target: str, tmp_path: Path) -> None:
    refused = pytest.raises(ModelError, match="answered 302")
    with serving(lambda handler, _: handler.answer(302, Location=target)) as server, refused:
        _download(server.url, tmp_path)


def test_a_file_of_unknown_size_is_not_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.download.MAX_BYTES", 4_000_000)
    with serving(whole(DATA * 20)) as server:
        with pytest.raises(ModelError, match="expected") as caught:
            _download(server.url, tmp_path, UNSIZED)
        assert int(str(caught.value).split(" sent ")[1].split()[0]) < 6_000_000


def test_a_later_call_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA[:2_999_000])
    with serving(whole(DATA)) as server:
        assert _download(server.url, tmp_path) == DATA
    assert server.requests[0][1] == "bytes=2999000-"


def test_a_server_that_knows_no_ranges_sends_all_again(tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"from another time")
    with serving(lambda handler, _: handler.answer(200, DATA)) as server:
        assert _download(server.url, tmp_path) == DATA


def test_a_server_that_sends_another_range_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA[:10])

    def ahead(handler: Any, _: str) -> None:
        handler.answer(206, DATA[20:], Content_Range=f"bytes 20-{len(DATA) - 1}/{len(DATA)}")

    with serving(ahead, whole(DATA)) as server:
        assert _download(server.url, tmp_path) == DATA


@pytest.mark.parametrize("file", [FILE, UNSIZED])
def test_a_part_longer_than_the_file_is_thrown_away(file: SourceFile, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA + b"more")
    with serving(whole(DATA)) as server:
        if file is FILE:  # its size is known: the part is checked and refused without a connection
            with pytest.raises(ModelError, match="thrown away"):
                _download(server.url, tmp_path, file)
        assert _download(server.url, tmp_path, file) == DATA


def test_busy_servers_are_asked_again(tmp_path: Path) -> None:
    with serving(status(503), status(429), whole(DATA)) as server:
        assert _download(server.url, tmp_path) == DATA


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_an_answer_that_will_not_change_ends_it(code: int, tmp_path: Path) -> None:
    with serving(status(code)) as server, pytest.raises(ModelError, match=f"{server.url} answered {code}"):
        _download(server.url, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body", [DATA[:-1] + b"\x00", DATA[::-1], b"<html>sign in first</html>", DATA + b"x", DATA[:-1]]
)
def test_the_wrong_bytes_are_refused_and_thrown_away(body: bytes, tmp_path: Path) -> None:
    with serving(whole(body)) as server:
        with pytest.raises(ModelError) as caught:
            _download(server.url, tmp_path, UNSIZED)
        assert f"expected SHA-256 {FILE.sha256}" in str(caught.value)
        assert hashlib.sha256(body).hexdigest() in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_longer_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    with serving(whole(DATA * 4)) as server:
        with pytest.raises(ModelError, match="expected") as caught:
            _download(server.url, tmp_path)
        size = int(str(caught.value).split(" sent ")[1].split()[0])
        assert len(DATA) < size < 2 * len(DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_brings_nothing_is_given_up_and_what_came_is_kept(tmp_path: Path) -> None:
    with serving(cut(DATA, 100_000), status(500)) as server:
        with pytest.raises(ModelError, match=r"500 .*; 100000 bytes are kept for the next try\.$"):
            _download(server.url, tmp_path)
        assert len(server.requests) == 1 + ATTEMPTS
    assert (tmp_path / "a.bin.part").read_bytes() == DATA[:100_000]
    assert not (tmp_path / "a.bin").exists()


def test_nobody_there(tmp_path: Path) -> None:
    with serving(status(200)) as server:
        url = server.url
    with pytest.raises(ModelError, match=r"cannot be downloaded \(.*refused.*\); 0 bytes are kept"):
        _download(url, tmp_path)
