"""How slots say to their parent that they are ready, or why not: a line each, through a pipe made before the fork."""

from __future__ import annotations

import os
import select
import time
from typing import Callable, Optional

from worker.errors import SettingsError

#: A slot's line if all is well; any other says why it is not.
_READY = "ready"


class Ready:
    """The pipe.

    Attributes:
        over: set in the parent once the first slots are ready. Slots that replace a dead one inherit it; nobody
            listens to them.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.over = False

    def say(self, trouble: str = "") -> None:
        """In a slot: it is ready, or in what `trouble` it is."""
        if not self.over:
            line = " ".join(trouble.split()) or _READY
            os.write(self._write, line.encode()[: select.PIPE_BUF - 1] + b"\n")

    def wait(self, slots: int, timeout_s: float, look: Callable[[], Optional[int]]) -> None:
        """In the parent: wait until `slots` slots are ready.

        Args:
            look: called all the time; gives the exit status of a slot that has died, and raises if the worker is to
                stop.

        Raises:
            SettingsError: one of them cannot work, has died, or is not ready in `timeout_s` seconds.
        """
        deadline, heard = time.monotonic() + timeout_s, b""
        while heard.count(b"\n") < slots:
            status = look()
            if select.select([self._read], [], [], 0.1)[0]:
                heard += os.read(self._read, select.PIPE_BUF)
            elif status is not None:  # and what it had to say was read before
                raise SettingsError(f"A slot died with status {status} at its start; see the log above.")
            for line in heard.decode().splitlines():
                if line != _READY:
                    raise SettingsError(line)
            if time.monotonic() > deadline:
                raise SettingsError(f"The slots were not ready within {timeout_s:g} s.")
        self.over = True
