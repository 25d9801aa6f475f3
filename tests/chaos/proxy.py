"""A way to Redis that can be cut, once a message was popped and before its consumer knows of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Callable, Optional, Tuple

#: How the answer to a BRPOP begins that brings a message: an array of a key and a value.
_POPPED = b"*2\r\n$"


class Proxy:
    """Passes bytes between the connections to `port` of its own and the Redis at `server`, on the loopback."""

    def __init__(self, server: int) -> None:
        self._server = ("127.0.0.1", server)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._trap: Optional[Tuple[Callable[[], bool], threading.Event]] = None
        threading.Thread(target=self._listen, daemon=True).start()

    def spring(self, action: Callable[[], bool], patience_s: float) -> bool:
        """Call `action` when the next message has been popped, and pass it on only if that returns True.

        Returns:
            whether one was popped within `patience_s` seconds.
        """
        self._trap = (action, threading.Event())
        sprung = self._trap[1].wait(patience_s)
        self._trap = None
        return sprung

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
                if not answers:
                    link.popping = b"BRPOP" in data
                elif link.popping and data.startswith(_POPPED) and not self._let_through():
                    break
                target.sendall(data)
        link.close()

    def _let_through(self) -> bool:
        trap, self._trap = self._trap, None
        if trap is None:
            return True
        passed = trap[0]()
        trap[1].set()
        return passed


class _Link:
    """One connection and what it stands for; `popping` while the last that was asked is a BRPOP."""

    def __init__(self, *ends: socket.socket) -> None:
        self._ends, self.popping = ends, False

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
