"""HTTP servers of the tests' own, on the loopback: they do as their routes say, and note what was asked."""

from __future__ import annotations

import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

from tests.support.brokers import need


class Seen(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: Dict[str, str]
    body: bytes


#: What answers a path: it may write whatever it likes.
Route = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A running server: `url` without a slash at its end, and what it has seen."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.routes: Dict[str, Route] = {}
        self.seen: List[Seen] = []


def answer(status: int, body: bytes = b"", **headers: str) -> Route:
    """Answers the same each time."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return route


@contextmanager
def site(certificate: Any = None) -> Iterator[Site]:
    """A server on a free port; with `certificate` (its file and that of its key) it speaks TLS."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            here.seen.append(Seen(self.command, self.path, dict(self.headers), self.rfile.read(length)))
            route = here.routes.get(self.path.partition("?")[0], answer(404))
            try:
                route(self)
            except OSError:
                self.close_connection = True  # the client had enough

        do_GET = do_POST = _answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "https" if certificate else "http"
    here = Site(f"{scheme}://localhost:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path) -> Any:
    """A certificate for localhost that vouches for itself, and its key."""
    cert, key = folder / "site.pem", folder / "site.key"
    subprocess.run(
        [need("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        + ["-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key
