"""HTTP servers on the loopback interface that behave badly on purpose, and a package index."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, Iterator, List, Optional

#: What one request gets: called with the handler and the request's Range header ("" if none).
Behaviour = Callable[["Handler", str], None]


class Handler(BaseHTTPRequestHandler):
    """Answers GET with the next behaviour of the server's script; the last one repeats."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        asked = self.headers.get("Range", "")
        server.requests.append((self.path, asked))
        script = server.script
        (script.pop(0) if len(script) > 1 else script[0])(self, asked)

    def answer(self, status: int, body: bytes = b"", length: Optional[int] = None, **headers: str) -> None:
        """Send a whole answer; `length`: what Content-Length says where that is not the truth."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


class Server:
    """A running server: its URL and the requests it got, as (path, Range)."""

    def __init__(self, url: str, requests: List[Any]) -> None:
        self.url, self.requests = url, requests


@contextlib.contextmanager
def serving(*script: Behaviour) -> Iterator[Server]:
    """Run a server that answers one request after the other by `script`."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.script, server.requests = list(script), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}", server.requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def whole(data: bytes) -> Behaviour:
    """All of it, or the range asked for."""

    def behave(handler: Handler, asked: str) -> None:
        if not asked:
            handler.answer(200, data)
            return
        start = int(asked[len("bytes=") :].rstrip("-"))
        if start >= len(data):
            handler.answer(416, Content_Range=f"bytes */{len(data)}")
            return
        handler.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")

    return behave


def cut(data: bytes, count: int) -> Behaviour:
    """Promise the rest, send `count` bytes of it and hang up."""

    def behave(handler: Handler, asked: str) -> None:
        start = int(asked[len("bytes=") :].rstrip("-")) if asked else 0
        rest = data[start:]
        headers = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        handler.answer(206 if asked else 200, rest[:count], len(rest), **headers)

    return behave


def stall(data: bytes, count: int, seconds: float) -> Behaviour:
    """Send `count` bytes, then nothing for `seconds`."""

    def behave(handler: Handler, asked: str) -> None:
        cut(data, count)(handler, asked)
        handler.wfile.flush()
        time.sleep(seconds)

    return behave


def status(code: int) -> Behaviour:
    """An empty answer of status `code`."""
    return lambda handler, _: handler.answer(code)


def index(packages: Dict[str, Dict[str, bytes]]) -> Behaviour:
    """A package index (PEP 503): project name → file name → file."""

    def behave(handler: Handler, _: str) -> None:
        parts = [part for part in handler.path.split("/") if part]
        files = packages.get(parts[1] if len(parts) > 1 else "", {})
        if parts[0] == "files" and parts[-1] in files:
            handler.answer(200, files[parts[-1]])
        elif parts[0] == "simple" and files:
            links = "".join(
                f'<a href="/files/{parts[1]}/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>'
                for name, data in files.items()
            )
            handler.answer(200, f"<html><body>{links}</body></html>".encode(), Content_Type="text/html")
        else:
            handler.answer(404)

    return behave


def sdist(name: str, members: Dict[str, bytes]) -> bytes:
    """A source distribution called `name` (with version) that holds `members`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for member, data in members.items():
            entry = tarfile.TarInfo(f"{name}/{member}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def wheel(members: Dict[str, bytes]) -> bytes:
    """A wheel that holds `members`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return stream.getvalue()
