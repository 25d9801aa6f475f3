"""The nets of one device: loaded when first asked for, the least recently used leaving where memory ends."""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from typing import Dict, List, Tuple

from worker.device.canvas import Canvas
from worker.device.pin import Device, own_batch, own_engine, own_precision, own_width_step
from worker.engine import Manifest, Net, load, read_manifest
from worker.errors import DeviceOutOfMemory
from worker.settings import Settings

logger = logging.getLogger(__name__)

#: Most inputs of a pass that a net is warmed with: for more, the start would take minutes.
_WARM_BATCH = 16


class Nets:
    """What one process holds of the nets that its worker serves.

    Args:
        device: where they run.

    Raises:
        ModelError: the manifest of one is missing or wrong.
        SettingsError: the device is not one for the engine that is set.
    """

    def __init__(self, settings: Settings, device: Device) -> None:
        self._settings, self._device = settings, device
        self.names = settings.nets
        self.precision = own_precision(settings, device.torch_name)
        self._engine = own_engine(settings, device.torch_name)
        if settings.engine == "auto" and device.gpu is None and self._engine == "torch":
            logger.info("OpenVINO, which is faster on a CPU, is not installed here; torch runs the nets.")
        self.manifests: Dict[str, Manifest] = {name: read_manifest(settings.models_dir / name) for name in self.names}
        self._loaded: OrderedDict[str, Net] = OrderedDict()

    def get(self, name: str) -> Net:
        """The net called `name`, loaded and warm.

        Raises:
            ModelError: its files are corrupt, or it uses something that is not supported.
            DeviceOutOfMemory: it does not fit even alone.
        """
        if name not in self._loaded:
            while len(self._loaded) >= (self._settings.max_nets or len(self.names)):
                self._evict()
            self._loaded[name] = self._load(name)
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _load(self, name: str) -> Net:
        while True:
            try:
                net = load(
                    self._settings.models_dir / name,
                    device=self._device.torch_name,
                    precision=self.precision,
                    engine=self._engine,
                    threads=self._settings.threads or None,
                    compile=self._settings.compile,
                )
                net.warm(*self._warmth(net.manifest.input.stride))
                return net
            except DeviceOutOfMemory:
                if not self._loaded:
                    raise
                self._evict()

    def _warmth(self, stride: int) -> Tuple[List[Tuple[int, int]], int]:
        """Sizes and the largest batch that a net is warmed with; a CPU has nothing to prepare for more than one."""
        canvas = Canvas(own_width_step(self._settings, self._device))
        sizes = [(height, canvas.width(width, stride)) for height, width in self._settings.warm_sizes]
        return sizes, min(own_batch(self._settings, self._device), _WARM_BATCH) if self._device.gpu else 1

    def make_room(self, name: str) -> bool:
        """Have another net than `name` leave, for a pass that did not fit; False: there is none."""
        if name in self._loaded:
            self._loaded.move_to_end(name)
        if next(iter(self._loaded), name) == name:
            return False
        self._evict()
        return True

    def _evict(self) -> None:
        name, net = self._loaded.popitem(last=False)
        logger.info("The net %s leaves the device's memory.", name)
        net.close()
        del net
        gc.collect()
