"""HTTP to strangers: public addresses only, one deadline, so many bytes."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from tests.support import wait_until
from tests.support.web import Site, answer, certificate, site
from worker.public_http import _LOOK_UP, _MOST_LOOK_UPS, Oversized, exchange, is_public, names


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    with site() as running:
        yield running


def _get(url: str, *, timeout_s: float = 5, max_bytes: int = 1000, private: Any = ("localhost",)) -> Any:
    return exchange("GET", url, timeout_s=timeout_s, max_bytes=max_bytes, private_hosts=private)


def test_an_answer_is_read_whole_and_redirects_are_not_followed(server: Site) -> None:
    server.routes["/a"] = answer(200, b"x" * 1000, X_Kind="test")
    found = _get(f"{server.url}/a?b=1")
    assert (found.status, found.body, found.headers["x-kind"]) == (200, b"x" * 1000, "test")
    assert server.seen[-1].path == "/a?b=1"
    server.routes["/away"] = answer(302, b"", Location=f"{server.url}/a")
    assert _get(f"{server.url}/away").status == 302


def test_a_body_is_sent_with_its_headers(server: Site) -> None:
    server.routes["/in"] = answer(204)
    exchange(
        "POST",
        f"{server.url}/in",
        timeout_s=5,
        max_bytes=10,
        private_hosts=["localhost"],
        body=b"{}",
        headers={"Content-Type": "application/json"},
    )
    method, _, headers, body = server.seen[-1]
    assert (method, body, headers["Content-Type"]) == ("POST", b"{}", "application/json")


def test_private_addresses_are_refused_unless_the_host_is_listed(server: Site) -> None:
    server.routes["/a"] = answer(200)
    before = len(server.seen)
    with pytest.raises(PermissionError, match="not public"):
        _get(f"{server.url}/a", private=())
    with pytest.raises(PermissionError, match="not public"):
        _get(f"{server.url}/a".replace("localhost", "127.0.0.1"))  # the name is listed, not the address
    assert len(server.seen) == before


def test_a_name_that_changes_its_address_is_connected_to_as_it_was_checked(
    server: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    looks = []

    def rebinding(host: str, *_: Any, **__: Any) -> Any:
        looks.append(host)
        address = "203.0.114.9" if len(looks) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected = []

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise OSError("unreachable in this test")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ConnectionError):
        _get(f"http://rebind.example:{port}/a", private=())
    assert looks == ["rebind.example"]
    assert connected == ["203.0.114.9"]


def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("203.0.114.9", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(PermissionError, match=r"10\.0\.0\.1"):
        _get("http://two.example/", private=())


@pytest.fixture
def silent_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[List[str]]:
    """A resolver that does not answer; gives the names that it was asked for."""
    over, asked = threading.Event(), []

    def look_up(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        over.wait(30)
        raise OSError("gave up")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    over.set()
    wait_until(lambda: not [one for one in threading.enumerate() if one.name == _LOOK_UP])


def test_a_resolver_that_does_not_answer_does_not_get_around_the_deadline(silent_resolver: List[str]) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"address of slow\.example was not found in time"):
        _get("http://slow.example/a", timeout_s=0.2)
    assert time.monotonic() - start < 2
    assert silent_resolver == ["slow.example"]


def test_look_ups_that_hang_are_bounded_in_number(silent_resolver: List[str]) -> None:
    for number in range(_MOST_LOOK_UPS):
        with pytest.raises(TimeoutError):
            _get(f"http://{number}.example/a", timeout_s=0.01)
    with pytest.raises(ConnectionError, match="is not looked up"):
        _get("http://one-more.example/a", timeout_s=5)
    assert "one-more.example" not in silent_resolver


def test_a_name_that_is_none_is_an_error_of_its_own() -> None:
    for host in ("no-such-host.invalid", f"{'a' * 64}.example", "a..example"):
        with pytest.raises(ConnectionError, match="there is no address"):
            _get(f"http://{host}/")


def _drip(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(f"X-{number}: 1\r\n".encode())
        handler.wfile.flush()
        time.sleep(0.05)


def test_a_server_that_drips_does_not_get_around_the_deadline(server: Site, tmp_path: Path) -> None:
    server.routes["/drip"] = _drip
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="did not answer in full"):
        _get(f"{server.url}/drip", timeout_s=0.3)
    assert time.monotonic() - start < 4  # all of it takes five


def test_too_long_and_cut_answers(server: Site) -> None:
    server.routes["/long"] = answer(200, b"x" * 2000)
    with pytest.raises(Oversized, match="more than 1000 bytes"):
        _get(f"{server.url}/long")

    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    server.routes["/cut"] = cut
    with pytest.raises(ConnectionError):
        _get(f"{server.url}/cut")
    with pytest.raises(ConnectionError, match="cannot be reached"):
        _get("http://localhost:1/")


def test_certificates_are_checked_and_tls_has_the_same_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = certificate(tmp_path)
    with site(pair) as server:
        server.routes.update({"/a": answer(200, b"safe"), "/drip": _drip})
        with pytest.raises(PermissionError, match="certificate"):
            _get(f"{server.url}/a")
        monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
        assert _get(f"{server.url}/a").body == b"safe"
        with pytest.raises(TimeoutError):
            _get(f"{server.url}/drip", timeout_s=0.3)


@pytest.mark.parametrize(
    "url", ["ftp://localhost/", "http:///a", "http://user:pw@localhost/", "localhost", "file:///a"]
)
def test_what_is_no_such_url(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        _get(url)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # where clouds keep credentials
        ("100.64.0.1", False),  # shared by carriers
        ("0.0.0.0", False),
        ("224.0.0.1", False),  # multicast
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),  # an IPv4 address in IPv6's clothes
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),  # NAT64
        ("2002:7f00:1::", False),  # 6to4
        ("::127.0.0.1", False),  # an IPv4 address in the clothes of old
        ("::ffff:0:10.1.2.3", False),  # SIIT
        ("64:ff9b::93.184.216.34", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::5db8:d822", False),  # NAT64 for local use
        ("64:ff9b:1:fffe::7f00:1", False),
        ("fec0::1", False),  # site-local
        ("feff:ffff::1", False),
        ("100::1", False),  # discarded
        ("5f00::1", False),  # segment routing
        ("4000::1", False),  # nobody's yet
        ("2001::1", False),  # Teredo
        ("2001:db8::1", False),
        ("2002:5db8:d822::1", False),  # 6to4, of a public address
        ("3fff::1", False),
        ("ff0e::1", False),
        ("168.63.129.16", False),  # Azure
        ("::ffff:168.63.129.16", False),
        ("64:ff9b::168.63.129.16", False),
        ("168.63.129.17", True),
        ("100.100.100.200", False),  # Alibaba
        ("192.0.0.192", False),  # Oracle
        ("169.254.0.23", False),  # Tencent
        ("161.26.0.10", False),  # IBM
        ("166.11.255.255", False),
        ("199.36.153.8", False),  # Google
        ("fd00:ec2::254", False),  # Amazon
        ("198.19.255.255", False),
        ("192.88.99.1", False),
        ("203.0.113.7", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("239.255.255.250", False),
        ("1.1.1.1", True),
        ("2a00:1450:4001::1", True),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_patterns_of_hosts() -> None:
    assert names(["img.example.org"], "IMG.example.org.")
    assert names(["*.example.org"], "a.b.example.org")
    assert not names(["*.example.org"], "example.org")
    assert not names(["*.example.org", "example.org"], "badexample.org")
