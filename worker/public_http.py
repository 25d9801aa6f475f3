"""HTTP to hosts that messages name: to public addresses only, resolved once, checked, and connected to as checked.

So neither a name that points into the own network nor one that changes between check and use (DNS rebinding) gets
through. Redirects are not followed, proxies not used; the whole exchange has one deadline.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, BinaryIO, Iterable, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import SplitResult, urlsplit

#: Addresses that are not of the public Internet, or lead back into the network that asks. IANA's registries of special
#: addresses (RFC 6890), and what clouds have for their own customers only.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this network: RFC 791
            "10.0.0.0/8",  # private: RFC 1918
            "100.64.0.0/10",  # shared by carriers: RFC 6598; Alibaba's metadata, 100.100.100.200
            "127.0.0.0/8",  # this host: RFC 1122
            "161.26.0.0/16",  # services inside IBM's cloud: its documentation of service endpoints
            "166.8.0.0/14",  # the same
            "168.63.129.16/32",  # the host of a machine in Azure: Microsoft, "What is IP address 168.63.129.16?"
            "169.254.0.0/16",  # link-local: RFC 3927; metadata of most clouds, 169.254.169.254
            "172.16.0.0/12",  # private: RFC 1918
            "192.0.0.0/24",  # for protocols: RFC 6890; Oracle's metadata, 192.0.0.192
            "192.0.2.0/24",  # documentation: RFC 5737
            "192.88.99.0/24",  # relays of 6to4: RFC 7526
            "192.168.0.0/16",  # private: RFC 1918
            "198.18.0.0/15",  # benchmarks: RFC 2544
            "198.51.100.0/24",  # documentation: RFC 5737
            "199.36.153.0/28",  # services inside Google's cloud: "Configure Private Google Access"
            "203.0.113.0/24",  # documentation: RFC 5737
            "224.0.0.0/4",  # multicast: RFC 5771
            "240.0.0.0/4",  # reserved, and broadcast: RFC 1112, RFC 919
            "2001::/23",  # for protocols, such as Teredo: RFC 2928
            "2001:db8::/32",  # documentation: RFC 3849
            "2002::/16",  # 6to4, which stands for IPv4: RFC 7526
            "3ffe::/16",  # the old 6bone: RFC 3701
            "3fff::/20",  # documentation: RFC 9637
        ),
    )
)
#: Of IPv6, all public addresses are in here: IANA's registry of its address space. So fc00::/7 (RFC 4193), fe80::/10
#: (RFC 4291), fec0::/10 (RFC 3879), 64:ff9b:1::/48 (RFC 8215) and 100::/64 (RFC 6666) are none.
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
#: IPv6 addresses that NAT64 turns into the IPv4 address in their last four bytes: RFC 6052.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: Names that are looked up at a time; a resolver that does not answer keeps a thread for as long as it likes.
_MOST_LOOK_UPS = 16
_LOOK_UP = "name-look-up"
#: Bytes read at a time.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Response:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Oversized(ValueError):
    """The answer's body has more bytes than were asked for."""


def exchange(
    method: str,
    url: str,
    *,
    timeout_s: float,
    max_bytes: int,
    private_hosts: Sequence[str] = (),
    body: Optional[bytes] = None,
    headers: Optional[Mapping[str, str]] = None,
    sink: Optional[BinaryIO] = None,
) -> Response:
    """Send one request and read the whole answer.

    Args:
        url: http:// or https://; certificates are checked.
        timeout_s: seconds for everything, from the look-up of the name to the last byte.
        max_bytes: most bytes of the answer's body.
        sink: a file that the body is written to; it is not kept in memory then.
        private_hosts: hosts that may have private addresses, see :func:`names`.

    Raises:
        PermissionError: the host has an address that is not public, or its certificate is not valid.
        ValueError: the URL is none, or holds a password.
        Oversized: the answer is too long.
        OSError: the server cannot be reached, does not answer in time, or breaks off.
    """
    parts = urlsplit(url)
    host, port = _host_and_port(parts)
    deadline = time.monotonic() + timeout_s
    addresses = _addresses(host, port, deadline, allowed=names(private_hosts, host))
    connection = http.client.HTTPConnection(host, port)
    sock = _connect(addresses, deadline)
    # A server that sends one byte now and then must not get around the deadline: the socket ends with it.
    tap = sock.dup()  # TLS takes the first one over
    end = threading.Timer(max(0.0, deadline - time.monotonic()), _shut, [tap])
    end.daemon = True
    end.start()
    try:
        if parts.scheme == "https":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        connection.sock = sock
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "pose-worker", **(headers or {})}
        connection.request(method, target, body=body, headers=sent)
        answer = connection.getresponse()
        found = Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, _read(answer, max_bytes, sink))
        if time.monotonic() >= deadline:  # then its end was ours
            raise TimeoutError
        return found
    except ssl.SSLCertVerificationError as exc:
        raise PermissionError(f"the certificate of {host} is not valid ({exc.verify_message})") from exc
    except http.client.InvalidURL as exc:
        raise ValueError("a URL must not hold spaces or control characters") from exc
    except (OSError, http.client.HTTPException) as exc:
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{host} did not answer in full within {timeout_s:g} s") from exc
        raise ConnectionError(f"{host} broke off ({exc or type(exc).__name__})") from exc
    finally:
        end.cancel()
        tap.close()
        sock.close()


def names(patterns: Iterable[str], host: str) -> bool:
    """Whether one of `patterns` is `host`, or is ``*.`` and a domain that `host` lies in."""
    host = host.lower().rstrip(".")
    for pattern in patterns:
        pattern = pattern.lower().rstrip(".")
        if host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:])):
            return True
    return False


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, also where it stands for another."""
    ip: Union[ipaddress.IPv4Address, ipaddress.IPv6Address] = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped or ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in _GLOBAL_IPV6:
            return False
    return not any(ip in network for network in _SPECIAL)


def _host_and_port(parts: SplitResult) -> Tuple[str, int]:
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is not an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ValueError("a URL must not hold a user or a password")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _addresses(host: str, port: int, deadline: float, *, allowed: bool) -> List[Tuple[int, Tuple[object, ...]]]:
    # Nothing ends a look-up: it has a thread of its own, which is left behind. Threads are counted, not kept in a count
    # of our own, for those of a parent do not go on in its forks.
    if sum(thread.name == _LOOK_UP for thread in threading.enumerate()) >= _MOST_LOOK_UPS:
        raise ConnectionError(f"{host} is not looked up: the resolver has not answered {_MOST_LOOK_UPS} others yet")
    answer: Future[Any] = Future()
    threading.Thread(target=_look_up, args=(host, port, answer), name=_LOOK_UP, daemon=True).start()
    try:
        found = answer.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeout as exc:
        raise TimeoutError(f"the address of {host} was not found in time") from exc
    except (OSError, UnicodeError) as exc:
        raise ConnectionError(f"there is no address of {host} ({exc})") from exc
    for _, _, _, _, address in found:
        if not allowed and not is_public(str(address[0])):
            raise PermissionError(f"{host} has the address {address[0]}, which is not public")
    return [(family, address) for family, _, _, _, address in found]


def _look_up(host: str, port: int, answer: Future[Any]) -> None:
    try:
        answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except Exception as exc:
        answer.set_exception(exc)


def _connect(addresses: Sequence[Tuple[int, Tuple[object, ...]]], deadline: float) -> socket.socket:
    failure: Optional[OSError] = None
    for family, address in addresses:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            sock.connect(address)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
    raise ConnectionError(f"{addresses[0][1][0]} cannot be reached ({failure})") from failure


def _read(answer: http.client.HTTPResponse, max_bytes: int, sink: Optional[BinaryIO]) -> bytes:
    kept, size = io.BytesIO(), 0
    while part := answer.read(_CHUNK):
        (sink or kept).write(part)
        size += len(part)
        if size > max_bytes:
            raise Oversized(f"more than {max_bytes} bytes")
    if answer.length:  # bytes that were announced and did not come
        raise ConnectionError(f"{answer.length} bytes are missing")
    return kept.getvalue()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
