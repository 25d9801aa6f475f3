"""The net process: owns the device, holds the net, runs batches. ``python -m worker.device.server``.

One loop, no threads: while a batch runs, the next inputs wait in their sockets and are read together after it. Where
the device works by itself, as a GPU does, a full batch is launched before the one that runs is answered, so that the
device does not wait for this process.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from worker import logs
from worker.children import die_with_parent
from worker.device import board as boards
from worker.device.batching import Batcher
from worker.device.board import Board, now
from worker.device.canvas import Canvas
from worker.device.channel import FLOAT16, FLOAT32, Connection, NetInputs
from worker.device.nets import Nets
from worker.device.pin import own_batch, own_device, own_width_step
from worker.device.tally import BATCH_SIZES
from worker.engine import Manifest, map_shapes
from worker.engine.net import Wait, waited
from worker.errors import DeviceLost, DeviceOutOfMemory, ModelError, PoseError
from worker.settings import settings

#: Seconds between two signs of life while nothing happens.
_BEAT_S = 0.5
#: What the parent reads when the net is ready; anything else is why it is not.
READY = b"ready "


class Flight(NamedTuple):
    """A pass that is launched and not waited for.

    Attributes:
        batch: its inputs.
        failure: why it could not be launched, if it could not.
        stays: whether the device works on it by itself.
    """

    batch: Sequence[NetInputs]
    wait: Wait
    failure: Optional[PoseError]
    stays: bool


class Server:
    """Answers slots from one device's nets.

    Args:
        listener: where slots connect.
        control: readable, at its end, when the parent wants this process to stop.
        half: whether maps travel as float16.
        canvas: what makes inputs of nearby widths share a pass.
    """

    def __init__(
        self,
        nets: Nets,
        batcher: Batcher[NetInputs],
        board: Board,
        *,
        listener: socket.socket,
        control: int,
        half: bool,
        canvas: Canvas,
    ) -> None:
        self._nets, self._batcher, self._row, self._canvas = nets, batcher, board.net, canvas
        self._listener, self._control = listener, control
        self._listener.setblocking(False)
        self._kind = FLOAT16 if half else FLOAT32
        self._dtype = np.dtype(np.float16 if half else np.float32)
        self._connections: List[Connection] = []
        self._flights: List[Flight] = []  # two at most, all of one net, in their order
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(control, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the parent says stop, or is gone.

        Raises:
            DeviceLost: the device does not work any more; the passes in flight are answered.
        """
        parent = os.getppid()
        try:
            while os.getppid() == parent:
                self._row.beat = now()
                if not self._read(0.0 if self._flights else self._pause()):
                    break
                self._forget_closed()
                company = any(one.coming for one in self._connections)
                batch = self._batcher.take(now(), company=company, full=bool(self._flights))
                stays = bool(batch) and self._start(batch)
                while len(self._flights) > stays:
                    self._land()
            while self._flights:
                self._land()
        except DeviceLost as exc:
            for flight in self._flights:
                _fail(flight.batch, exc)
            raise  # this process can do nothing more; its parent starts another

    def _start(self, batch: Sequence[NetInputs]) -> bool:
        """Launch a pass; whether it may stay in flight while others are read."""
        while self._flights and self._flights[0].batch[0].net != batch[0].net:
            self._land()  # no net is loaded, and none leaves, while the device works
        self._row.busy_since = self._row.busy_since or now()
        self._flights.append(self._launch(batch))
        return self._flights[-1].stays

    def _land(self) -> None:
        """Wait for the pass that was launched first, and answer it."""
        flight = self._flights.pop(0)
        self._settle(flight.batch, self._wait(flight))
        self._row.busy_since, self._row.last_batch_at = now() if self._flights else 0.0, now()
        self._row.batch = type(self._row.batch)()

    def _pause(self) -> float:
        due = self._batcher.next_due()
        return _BEAT_S if due is None else min(_BEAT_S, max(0.0, due - now()))

    def _read(self, timeout_s: float) -> bool:
        """Take in all that has arrived, waiting for it at most `timeout_s` seconds; False: stop."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj == self._control:
                return False
            if key.fileobj is self._listener:
                self._accept()
            else:
                self._receive(key.data)
        return True

    def _accept(self) -> None:
        """Let in all who wait at the door, and hear at once what they have to say: it is company for others."""
        with suppress(OSError):  # nobody is left there
            while True:
                connection = Connection(self._listener.accept()[0])
                if not connection.is_ours():
                    connection.close()
                    continue
                self._connections.append(connection)
                self._selector.register(connection, selectors.EVENT_READ, connection)
                self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        for given in connection.receive():
            count, height, width, _ = given.inputs.shape
            try:
                stride = self._manifest(given).input.stride
                if height % stride or width % stride:
                    raise ValueError(f"{height}x{width} is no multiple of {stride}")
                self._maps(given)  # whether there is room for them
            except (ValueError, IndexError) as exc:
                connection.fail(given, DeviceLost(f"The net process was sent an input that it cannot run: {exc}."))
            else:
                self._batcher.add(given, (given.net, height, self._canvas.width(width, stride)), count, now())

    def _forget_closed(self) -> None:
        for connection in [one for one in self._connections if not one.open]:
            self._selector.unregister(connection)
            self._connections.remove(connection)
            connection.close()
        self._batcher.discard(lambda given: not given.sender.open)

    def _run(self, batch: Sequence[NetInputs]) -> None:
        self._settle(batch, self._wait(self._launch(batch)))

    def _settle(self, batch: Sequence[NetInputs], failure: Optional[PoseError]) -> None:
        """Answer; what fails together is tried in halves, so that each input fails for itself alone."""
        full = isinstance(failure, DeviceOutOfMemory)
        self._row.out_of_memory += full
        if failure is None:
            self._count(batch)
            for given in batch:
                given.sender.succeed(given, self._kind)
        elif len(batch) > 1 and not isinstance(failure, ModelError):
            middle = len(batch) // 2
            self._run(batch[:middle])
            self._run(batch[middle:])
        elif full and self._nets.make_room(self._name(batch[0])):
            self._run(batch)
        else:
            _fail(batch, failure)

    def _launch(self, batch: Sequence[NetInputs]) -> Flight:
        def launch() -> Tuple[Wait, bool]:
            net = self._nets.get(self._name(batch[0]))
            return net.launch(self._inputs(batch), [self._maps(given) for given in batch]), net.overlaps

        launched, failure = self._try(batch, launch)
        wait, stays = launched or (waited, False)
        return Flight(batch, wait, failure, stays)

    def _wait(self, flight: Flight) -> Optional[PoseError]:
        return flight.failure or self._try(flight.batch, flight.wait)[1]

    def _try(self, batch: Sequence[NetInputs], do: Callable[[], Any]) -> Tuple[Any, Optional[PoseError]]:
        """What `do` returns for `batch`, or what it failed with. That is returned: an exception that is being handled
        keeps everything alive that the failed pass had on the device, and the next one needs that memory."""
        try:
            self._row.batch = type(self._row.batch)(*{given.sender.pid for given in batch})
            return do(), None
        except DeviceLost as exc:
            _fail(batch, exc)
            raise
        except PoseError as exc:
            return None, type(exc)(*exc.args)
        except Exception as exc:
            return None, DeviceLost(f"The net failed on an input: {exc!r}.")

    def _inputs(self, batch: Sequence[NetInputs]) -> Sequence[np.ndarray]:
        """The inputs of a pass, equally wide; those of one batch have the same width on the canvas."""
        spec, inputs = self._manifest(batch[0]).input, [given.inputs for given in batch]
        return self._canvas.join(inputs, self._canvas.width(inputs[0].shape[2], spec.stride), spec.pad_value)

    def _count(self, batch: Sequence[NetInputs]) -> None:
        inputs = sum(len(given.inputs) for given in batch)
        self._row.batches += 1
        self._row.inputs += inputs
        self._row.batch_sizes.observe(inputs, BATCH_SIZES)

    def _name(self, given: NetInputs) -> str:
        return self._nets.names[given.net]

    def _manifest(self, given: NetInputs) -> Manifest:
        return self._nets.manifests[self._name(given)]

    def _maps(self, given: NetInputs) -> tuple[np.ndarray, np.ndarray]:
        count, height, width, _ = given.inputs.shape
        heatmaps, pafs = map_shapes(self._manifest(given), count, (height, width))
        first = given.maps.array(given.at_maps, heatmaps, self._dtype)
        return first, given.maps.array(given.at_maps + first.nbytes, pafs, self._dtype)


def _fail(batch: Sequence[NetInputs], exc: PoseError) -> None:
    for given in batch:
        given.sender.fail(given, exc)


def main(arguments: Sequence[str]) -> int:
    """Load the net, report, serve. Returns the exit status.

    Args:
        arguments: descriptors of the listening socket, of the worker's board, of what ends when this process is to
            stop, and of where to say ready; the process id of the worker; its name.
    """
    listen, page, control, report, parent = map(int, arguments[:5])
    name = arguments[5]
    die_with_parent()
    logs.begin(f"{name} net")
    if os.getppid() != parent:
        return 1
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A signal to the whole process group must not take the net from slots that finish their jobs.
        signal.signal(signum, signal.SIG_IGN)
    board = Board(page)
    board.net.pid, board.net.state, board.net.busy_since = os.getpid(), boards.LOADING, 0.0
    board.net.batch = type(board.net.batch)()
    board.net.starts += 1
    try:
        device = own_device(settings(), name)
        nets = Nets(settings(), device)
        nets.get(settings().model)
    except PoseError as exc:
        os.write(report, str(exc).encode())
        return 1
    batcher: Batcher[NetInputs] = Batcher(own_batch(settings(), device), settings().batch_wait_ms / 1000)
    half, listener = nets.precision == "fp16", socket.socket(fileno=listen)
    canvas = Canvas(own_width_step(settings(), device))
    server = Server(nets, batcher, board, listener=listener, control=control, half=half, canvas=canvas)
    board.net.beat, board.net.state = now(), boards.READY
    os.write(report, READY + f"{settings().model} {nets.precision} on {device}".encode())
    try:
        server.run()
    except DeviceLost as exc:
        logs.last_words(str(exc), f"{name} net")
        return 1
    finally:
        board.net.state = boards.LOADING
    return 0


if __name__ == "__main__":
    # At an ordinary end CUDA's libraries put the device in order; one that does not work any more may never answer.
    os._exit(main(sys.argv[1:]))
