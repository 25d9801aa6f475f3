"""A net process's server in a thread of this one, on a net that is played."""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from worker.device.batching import Batcher
from worker.device.board import Board
from worker.device.canvas import Canvas
from worker.device.channel import RemoteNet, listen
from worker.device.server import Server
from worker.engine import Maps, read_manifest
from worker.engine.net import Wait, waited
from worker.errors import DeviceLost, DeviceOutOfMemory, ModelError

#: An input that begins with this makes the pass fail in which it is.
POISON = 13


class _Memory:
    """What a pass has on the device."""


class FakeNet:
    """Its maps tell of each input's first pixel; it fits `fits` inputs, and only if the last pass has left nothing."""

    overlaps = False

    def __init__(self, fits: int = 99) -> None:
        self.fits = fits
        self.passes: List[int] = []
        self._last: Any = None

    def fill(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        held = _Memory()
        assert self._last is None or self._last() is None, "the failed pass still holds its memory"
        self._last = weakref.ref(held)
        count = sum(map(len, inputs))
        self.passes.append(count)
        if count > self.fits:
            raise DeviceOutOfMemory(f"{count} inputs do not fit")
        if any(input[0, 0, 0, 0] == POISON for input in inputs):
            raise RuntimeError("something that no net should do")
        pixels = np.concatenate(inputs)[:, 0, 0]  # fails unless all are equally wide
        for heatmaps, pafs in maps:
            (first, second, _), *pixels = pixels[0], *pixels[len(heatmaps) :]
            heatmaps[...], pafs[...] = first, second

    def launch(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> Wait:
        self.fill(inputs, maps)
        return waited


class OverlappingNet(FakeNet):
    """It writes its maps when it is waited for.

    Attributes:
        events: what was launched and waited for, and of how many inputs.
        before: done before the launches, one before each.
        breaks: what the waits raise, in their order; None: nothing.
    """

    overlaps = True

    def __init__(self, *before: Callable[[], Any], breaks: Sequence[Optional[Exception]] = ()) -> None:
        super().__init__()
        self.events: List[Tuple[str, int]] = []
        self._before, self._breaks = list(before), list(breaks)

    def launch(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> Wait:
        count = sum(map(len, inputs))
        self.events.append(("launch", count))
        if self._before:
            self._before.pop(0)()
        made = [tuple(np.empty_like(array) for array in pair) for pair in maps]
        self.fill(inputs, made)  # type: ignore[arg-type]

        def wait() -> None:
            self.events.append(("wait", count))
            failure = self._breaks.pop(0) if self._breaks else None
            if failure:
                raise failure
            for pair, found in zip(maps, made):
                for array, values in zip(pair, found):
                    array[...] = values

        return wait


class FakeNets:
    """Stands for worker.device.nets.Nets; `spare` nets can leave, and each makes room for one more input."""

    def __init__(self, folder: Path, net: Any, spare: int) -> None:
        self.names, self._net, self._spare = ("thin", "other"), net, spare
        self.manifests = {name: read_manifest(folder) for name in self.names}

    def get(self, name: str) -> Any:
        if name == "other":
            self._net.events.append(("other", 0))
        return self._net

    def make_room(self, name: str) -> bool:
        self._spare -= 1
        self._net.fits += self._spare >= 0
        return self._spare >= 0


class Running:
    """A server in a thread, and slots that ask it together."""

    def __init__(self, folder: Path, net: Any, spare: int = 0, half: bool = False, step: int = 1) -> None:
        self.board, self._manifest, self._listener = Board.create(), read_manifest(folder), listen()
        self._address = self._listener.getsockname()
        self._control, self._stop = os.pipe()
        nets: Any = FakeNets(folder, net, spare)
        self._batcher: Any = Batcher(8, 30.0)
        self._server = Server(
            nets,
            self._batcher,
            self.board,
            listener=self._listener,
            control=self._control,
            half=half,
            canvas=Canvas(step),
        )
        self._lost = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._server.run()
        except DeviceLost:
            self._lost = True
            for connection in self._server._connections:  # which end with their process, usually
                connection.close()

    @property
    def lost(self) -> bool:
        """Whether the server ends, for its device is lost."""
        self._thread.join(10)
        return self._lost

    def await_inputs(self, count: int) -> None:
        """Wait until `count` inputs wait, read or not; the server itself calls this, while it launches."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            unread = select.select(self._server._connections, [], [], 0)[0]
            if len(self._batcher) + len(unread) >= count:
                return
            time.sleep(0.002)

    def ask(
        self, pixels: Sequence[Tuple[int, int]], widths: Sequence[int] = (), numbers: Sequence[int] = ()
    ) -> List[Any]:
        """One slot for each pair of pixel values, its input's width if it is not 64, and its net's number if that is
        not 0; what each gets: its maps' values, or an error."""
        chosen = numbers or [0] * len(pixels)
        slots = [RemoteNet(self._address, self._manifest, number=number, timeout_s=20) for number in chosen]
        for slot in slots:
            slot.begin()
        found: Dict[int, Any] = {}

        def one(index: int) -> None:
            input = slots[index].empty((1, 64, widths[index] if widths else 64, 3))
            input[...] = 0
            input[0, 0, 0, :2] = pixels[index]
            try:
                heatmaps, pafs = slots[index](input)
                found[index] = (heatmaps.min(), heatmaps.max(), pafs.min(), pafs.max())
            except (DeviceLost, DeviceOutOfMemory, ModelError) as exc:
                found[index] = exc

        threads = [threading.Thread(target=one, args=(index,)) for index in range(len(slots))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for slot in slots:
            slot.close()
        return [found[index] for index in range(len(slots))]

    def end(self) -> None:
        """Say that it is to stop."""
        if self._stop >= 0:
            os.close(self._stop)
        self._stop = -1

    def stop(self) -> None:
        self.end()
        self._thread.join(10)
        os.close(self._control)
        self._listener.close()
        for connection in self._server._connections:  # which end with their process, usually
            connection.close()
