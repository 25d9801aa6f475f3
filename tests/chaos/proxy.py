"""A way to Redis that can be cut, once a message was popped and before its consumer knows of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Callable, Optional, Sequence

#: How the answer to a BRPOP begins that brings a message: an array of a key and a value.
_POPPED = b"*2\r\n$"


class Trap:
    """Waits for the next message that is popped through one of `proxies`.

    Args:
        action: is told which of them that was, and whether the message is passed on is what it returns.
    """

    def __init__(self, proxies: Sequence[Proxy], action: Callable[[Proxy], bool]) -> None:
        self._action, self._armed, self._sprung = action, threading.Lock(), threading.Event()
        self._proxies = proxies
        for proxy in proxies:
            proxy.trap = self

    def wait(self, patience_s: float) -> bool:
        """Whether it has sprung within `patience_s` seconds; then, or when they are over, there is no trap any more."""
        sprung = self._sprung.wait(patience_s)
        for proxy in self._proxies:
            proxy.trap = None
        return sprung

    def spring(self, proxy: Proxy) -> bool:
        """A message has been popped through `proxy`; returns whether it is passed on."""
        if not self._armed.acquire(blocking=False):  # by another one, a moment ago
            return True
        try:
            return self._action(proxy)
        finally:
            self._sprung.set()


class Proxy:
    """Passes bytes between the connections to `port` of its own and the Redis at `server`, on the loopback."""

    def __init__(self, server: int) -> None:
        self.trap: Optional[Trap] = None
        self._server = ("127.0.0.1", server)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server, 2)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            link = _Link(client, server)
            threading.Thread(target=self._pass, args=(link, client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(link, server, client, True), daemon=True).start()

    def _pass(self, link: _Link, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(65536)
                if not data:
                    break
                trap = self.trap
                if not answers:
                    link.popping = b"BRPOP" in data
                elif trap is not None and link.popping and data.startswith(_POPPED) and not trap.spring(self):
                    break
                target.sendall(data)
        link.close()


class _Link:
    """One connection and what it stands for; `popping` while the last that was asked is a BRPOP."""

    def __init__(self, *ends: socket.socket) -> None:
        self._ends, self.popping = ends, False

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
