"""Stands in for a worker that died too often: it says so in heartbeat and metrics, until the worker is tried again.

``python -m worker.process.benched``, started by the fleet. It has the worker's name, and on its port it answers
Prometheus, so that whoever watches the worker sees what has become of it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import time
from typing import Sequence

from worker import logs
from worker.children import interruptible
from worker.device.board import Board
from worker.device.gpus import Gpu
from worker.device.pin import Device
from worker.errors import SettingsError
from worker.observe.heart import Heart
from worker.observe.metrics import Exporter
from worker.settings import settings

logger = logging.getLogger(__name__)

_BEAT_S = 0.5


def main(arguments: Sequence[str]) -> int:
    """Stand in, then leave. Returns the exit status.

    Args:
        arguments: the worker's name before the ``@host``; for how many seconds; why; of its GPU, if it has one, the
            number, UUID and name.
    """
    name, seconds, why = f"{arguments[0]}@{socket.gethostname()}", float(arguments[1]), arguments[2]
    gpu = arguments[3:]
    device = Device(Gpu(int(gpu[0]), gpu[1], gpu[2]) if gpu else None)
    logs.begin(f"{name} benched")
    board = Board.create()
    board.last_error = why
    heart = Heart(settings(), name, device, board, 0)
    heart.benched = True
    try:
        if settings().metrics_port:
            Exporter(settings(), name, device, board, 0, benched=True)
    except SettingsError as exc:  # the heartbeat tells all the same
        logger.error("✗ %s", exc)
    until = time.monotonic() + seconds
    with interruptible(), contextlib.ExitStack() as after:
        after.callback(heart.stop)
        while time.monotonic() < until:
            heart.beat()
            time.sleep(_BEAT_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
