"""HTTP to hosts that messages name: to public addresses only, resolved once, checked, and connected to as checked.

So neither a name that points into the own network nor one that changes between check and use (DNS rebinding) gets
through. Redirects are not followed, proxies not used; the whole exchange has one deadline.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Iterable, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import SplitResult, urlsplit

#: IPv6 addresses whose last four bytes stand for an IPv4 one: RFC 6052, 2765 and 4291 (section 2.5.5.1).
_TRANSLATED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
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
) -> Response:
    """Send one request and read the whole answer.

    Args:
        url: http:// or https://; certificates are checked.
        timeout_s: seconds for everything, from the connection to the last byte.
        max_bytes: most bytes of the answer's body.
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
    addresses = _addresses(host, port, allowed=names(private_hosts, host))
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
        found = Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, _read(answer, max_bytes))
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
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and any(ip in network for network in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _host_and_port(parts: SplitResult) -> Tuple[str, int]:
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is not an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ValueError("a URL must not hold a user or a password")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _addresses(host: str, port: int, *, allowed: bool) -> List[Tuple[int, Tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise ConnectionError(f"there is no address of {host} ({exc})") from exc
    for _, _, _, _, address in found:
        if not allowed and not is_public(str(address[0])):
            raise PermissionError(f"{host} has the address {address[0]}, which is not public")
    return [(family, address) for family, _, _, _, address in found]


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


def _read(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    parts, size = [], 0
    while True:
        part = answer.read(_CHUNK)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise Oversized(f"more than {max_bytes} bytes")
    if answer.length:  # bytes that were announced and did not come
        raise ConnectionError(f"{answer.length} bytes are missing")
    return b"".join(parts)


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
