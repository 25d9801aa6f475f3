"""A net process's server in a thread of this one, on a net that is played."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from worker.device.batching import Batcher
from worker.device.board import Board
from worker.device.canvas import Canvas
from worker.device.channel import RemoteNet, listen
from worker.device.server import Server
from worker.engine import Maps, read_manifest
from worker.errors import DeviceLost, DeviceOutOfMemory, ModelError

#: An input that begins with this makes the pass fail in which it is.
POISON = 13


class _Memory:
    """What a pass has on the device."""


class FakeNet:
    """Its maps tell of each input's first pixel; it fits `fits` inputs, and only if the last pass has left nothing."""

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


class FakeNets:
    """Stands for worker.device.nets.Nets; `spare` nets can leave, and each makes room for one more input."""

    def __init__(self, folder: Path, net: Any, spare: int) -> None:
        self.names, self._net, self._spare = ("thin",), net, spare
        self.manifests = {"thin": read_manifest(folder)}

    def get(self, name: str) -> Any:
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
        batcher: Any = Batcher(8, 30.0)
        self._server = Server(
            nets,
            batcher,
            self.board,
            listener=self._listener,
            control=self._control,
            half=half,
            canvas=Canvas(step),
        )
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()

    def ask(self, pixels: Sequence[Tuple[int, int]], widths: Sequence[int] = ()) -> List[Any]:
        """One slot for each pair of pixel values, and its input's width if it is not 64; what each gets: its maps'
        values, or an error."""
        slots = [RemoteNet(self._address, self._manifest, timeout_s=20) for _ in pixels]
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

    def stop(self) -> None:
        os.close(self._stop)
        self._thread.join(10)
        os.close(self._control)
        self._listener.close()
        for connection in self._server._connections:  # which end with their process, usually
            connection.close()
