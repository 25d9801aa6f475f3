"""What a Redis is told, command by command, as its MONITOR shows it."""

from __future__ import annotations

import re
import threading
import uuid
from contextlib import contextmanager
from typing import Iterator, List, NamedTuple

import redis

#: A word between quotation marks; what is not printable stays escaped.
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Seen(NamedTuple):
    """One command: its words, the connection it came by (``lua`` if from within a script)."""

    words: List[str]
    client: str

    @property
    def name(self) -> str:
        return self.words[0].upper()


@contextmanager
def monitored(url: str) -> Iterator[List[Seen]]:
    """The commands that reach the Redis at `url`; complete when the context has been left."""
    seen: List[Seen] = []
    last, listening = uuid.uuid4().hex, threading.Event()

    def listen() -> None:
        with redis.Redis.from_url(url, socket_timeout=None) as client:
            connection = client.connection_pool.get_connection()
            connection.send_command("MONITOR")
            connection.read_response()
            listening.set()
            while not seen or last not in seen[-1].words:
                line = connection.read_response(disable_decoding=True).decode(errors="replace")
                seen.append(Seen(_WORD.findall(line), line[line.index("[") : line.index("]")].split(" ")[1]))
            connection.disconnect()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert listening.wait(10)
    try:
        yield seen
    finally:
        with redis.Redis.from_url(url) as client:
            client.echo(last)
        thread.join(10)
