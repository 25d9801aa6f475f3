"""Images by https://: from allowed places only, whatever those say."""

from __future__ import annotations

import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np
import pytest

from tests.support.web import Site, answer, certificate, site
from worker.contract import without_query
from worker.errors import (
    ImageNotAllowed,
    ImageNotFound,
    ImageNotReady,
    ImageTooLarge,
    ImageUndecodable,
    ImageUnreadable,
    SettingsError,
)
from worker.images.local import load_image
from worker.images.policy import ImagePolicy, check_root
from worker.settings import read_settings

PHOTO = bytes(cv2.imencode(".jpg", np.full((40, 30, 3), 7, np.uint8))[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A certificate and its key."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def running(pair: tuple) -> Iterator[Site]:
    with site(pair) as server:
        yield server


@pytest.fixture
def server(running: Site, pair: tuple, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
    running.routes = {"/in/a.jpg": answer(200, PHOTO), "/secret/a.jpg": answer(200, PHOTO)}
    running.seen.clear()
    return running


@pytest.fixture
def policy(server: Site) -> ImagePolicy:
    return ImagePolicy((f"{server.url}/in/", "/data"), url_timeout_s=5, private_hosts=("localhost",))


def test_an_image_below_a_root_is_read_and_its_signature_is_kept_secret(server: Site, policy: ImagePolicy) -> None:
    picture = load_image(f"{server.url}/in/a.jpg?signature=s3cret", policy)
    assert (picture.width, picture.height) == (30, 40)
    assert server.seen[0].path == "/in/a.jpg?signature=s3cret"
    assert picture.path == f"{server.url}/in/a.jpg"
    with pytest.raises(ImageNotFound) as caught:
        load_image(f"{server.url}/in/b.jpg?signature=s3cret", policy)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "{url}/secret/a.jpg",
        "{url}/in/../secret/a.jpg",
        "{url}/in/%2e%2e/secret/a.jpg",
        "{url}/in/..%2fsecret/a.jpg",
        "{url}/inside/a.jpg",
        "{url}/",
        "https://localhost/in/a.jpg",  # another port
        "https://other.example:{port}/in/a.jpg",
        "https://user:pw@localhost:{port}/in/a.jpg",
        "https://localhost:{port}\\@other.example/in/a.jpg",
        "https://127.0.0.1:{port}/in/a.jpg",  # the same place, but not the same name
        "https:///in/a.jpg",
        "https://localhost:none/in/a.jpg",
        "http://localhost:{port}/in/a.jpg",  # not encrypted
        "ftp://localhost/in/a.jpg",
    ],
)
def test_what_no_root_allows_is_not_asked_for(server: Site, policy: ImagePolicy, url: str) -> None:
    with pytest.raises(ImageNotAllowed):
        load_image(url.format(url=server.url, port=server.url.rpartition(":")[2]), policy)
    assert server.seen == []


#: What some server reads as the folder above.
CLIMBS = [
    "..",
    "..;",
    "..;a=b",
    "..;/x/..;",
    ".;/..",
    "..%5c",
    "..%5C..%5c",
    "%5c..",
    "%2e%2e",
    "%2E.",
    "%252e%252e",
    "%25252e%25252e",
    "%2525252525252e.",
    "..%2f",
    "..%252f",
    "..%255c",
    "%2e%2e%3b",
    "%2e%2e;",
    "%2e%2e%253bx",
    "..%00",
    "..%20",
    "..%09",
    "%0a..",
    ".%0d.",
    ". .",
    "..%a0",
    "..%c2%a0",
    "...",
    ".",
    "..%3f",
    "..%23",
    "%c0%ae%c0%ae",
    "%c0%af..%c0%af",
    "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae",
    "%u002e%u002e",
    "%uff0e%uff0e",
    "%25u002e%25u002e",
    "%uD800",
    "..%u2215..",
    "%ef%bc%8e%ef%bc%8e",
    "%e2%80%a5",
    "\uff0e\uff0e",
    "..%ef%bc%8f",
    "..%ef%bc%bc",
    "x%2f..",
    "x%2f%2e%2e%2f..",
    "%" + "25" * 2000 + "2e.",
]


@pytest.mark.parametrize("climb", CLIMBS, ids=ascii)
def test_no_way_to_write_the_folder_above_is_asked_for(server: Site, policy: ImagePolicy, climb: str) -> None:
    for rest in ("/secret/a.jpg", "/a.jpg", "", "?a=b"):
        assert not policy.allows_url(f"{server.url}/in/{climb}{rest}")
        assert not policy.allows_url(f"{server.url}/in/deep/{climb}{rest}")
    assert not ImagePolicy(("s3://bucket/in",)).allows_url(f"s3://bucket/in/{climb}/secret/a.jpg")


@pytest.mark.parametrize("climb", ["..", "..;", "%252e%252e", "..%5c", "%2e%2e;"])
def test_no_redirect_climbs(server: Site, policy: ImagePolicy, climb: str) -> None:
    server.routes["/in/away"] = answer(302, Location=f"/in/{climb}/secret/a.jpg")
    with pytest.raises(ImageNotAllowed, match="leads to"):
        load_image(f"{server.url}/in/away", policy)
    assert [one.path for one in server.seen] == ["/in/away"]


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "..a.jpg", "a..", ".a", "a...b/c.jpg", "a%20b.jpg", "%e9t%e9.jpg", "%c3%a9t%c3%a9.jpg", "100%.jpg"]
    + ["a;v=1/b.jpg", "a%2fb.jpg", "a%2Eb", "-/_~.jpg", "a@b:c,d=e+f.jpg", "%ed%95%9c.jpg"],
)
def test_names_with_dots_and_odd_characters_are_allowed(name: str) -> None:
    assert ImagePolicy(("https://a.example/in",)).allows_url(f"https://a.example/in/{name}")


def test_a_private_address_is_refused_although_its_name_is_allowed(server: Site, policy: ImagePolicy) -> None:
    with pytest.raises(ImageNotAllowed, match="not public"):
        load_image(f"{server.url}/in/a.jpg", replace(policy, private_hosts=()))
    assert server.seen == []


def test_redirects_go_where_roots_allow_and_not_on_for_ever(server: Site, policy: ImagePolicy) -> None:
    server.routes["/in/moved"] = answer(302, Location="a.jpg")
    assert load_image(f"{server.url}/in/moved", policy).width == 30
    for target in ("/secret/a.jpg", "http://169.254.169.254/latest", "https://[::1]/in/a.jpg", "file:///etc/passwd"):
        server.routes["/in/away"] = answer(302, Location=target)
        with pytest.raises(ImageNotAllowed, match="leads to"):
            load_image(f"{server.url}/in/away", policy)
    server.routes["/in/round"] = answer(307, Location="round")
    with pytest.raises(ImageNotAllowed, match="redirects"):
        load_image(f"{server.url}/in/round", policy)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, ImageNotFound),
        (410, ImageNotFound),
        (401, ImageNotAllowed),
        (403, ImageNotAllowed),
        (204, ImageNotAllowed),
        (429, ImageUnreadable),
        (500, ImageUnreadable),
        (503, ImageUnreadable),
    ],
)
def test_what_servers_answer(server: Site, policy: ImagePolicy, status: int, error: type) -> None:
    server.routes["/in/a.jpg"] = answer(status)
    with pytest.raises(error):
        load_image(f"{server.url}/in/a.jpg", policy)


def test_too_much_nothing_and_something_else(server: Site, policy: ImagePolicy) -> None:
    with pytest.raises(ImageTooLarge, match="more than 100 bytes"):
        load_image(f"{server.url}/in/a.jpg", replace(policy, max_bytes=100))
    server.routes.update({"/in/none": answer(200), "/in/page": answer(200, b"<html>" * 9)})
    with pytest.raises(ImageUndecodable, match="empty"):
        load_image(f"{server.url}/in/none", policy)
    with pytest.raises(ImageUndecodable, match="not an image"):
        load_image(f"{server.url}/in/page", policy)
    with pytest.raises(ImageNotReady):
        load_image(f"{server.url}/in/soon.jpg", replace(policy, wait_for_missing=True))


def test_a_slow_server_is_given_up(server: Site, policy: ImagePolicy) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(40):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    server.routes["/in/slow.jpg"] = drip
    with pytest.raises(ImageUnreadable, match=r"within 0\.3 s"):
        load_image(f"{server.url}/in/slow.jpg", replace(policy, url_timeout_s=0.3))


def test_an_unknown_certificate_is_refused(server: Site, policy: ImagePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ImageNotAllowed, match="certificate"):
        load_image(f"{server.url}/in/a.jpg", policy)


def test_roots_are_folders_and_urls() -> None:
    text = "/data:s3://photos/2026:https://a.example:8443/in:file:///more:https://b.example:rel"
    roots = read_settings({"POSE_IMAGE_ROOTS": text}).image_roots
    assert roots == (
        "/data",
        "s3://photos/2026",
        "https://a.example:8443/in",
        "file:///more",
        "https://b.example",
        "rel",
    )
    for root in roots:
        if not root.startswith("s3"):
            check_root(root)
    for wrong in ("http://a.example", "ftp://a.example", "https://", "https://u:p@a.example"):
        with pytest.raises(SettingsError, match="POSE_IMAGE_ROOTS"):
            check_root(wrong)


def test_a_file_root_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    assert load_image(str(tmp_path / "a.jpg"), ImagePolicy((tmp_path.as_uri(),))).width == 30


def test_what_is_shown_of_a_url() -> None:
    assert without_query("https://a.example/b?c#d") == "https://a.example/b"
    assert without_query("s3://bucket/b?c") == "s3://bucket/b?c"
    assert without_query("/data/what?.jpg") == "/data/what?.jpg"
    assert without_query("/data/a://b@c?d") == "/data/a://b@c?d"
    assert without_query("file:///data/what?.jpg") == "file:///data/what?.jpg"
    assert without_query("HTTPS://u:p@a.example:8/b@c?d") == "HTTPS://a.example:8/b@c"
    assert without_query("ftp://u:p@[::1?c") == "ftp://[::1"
