"""The default engine: a NetDef executed by PyTorch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import torch

from worker.engine.manifest import INIT_NET, PREDICT_NET, Manifest
from worker.engine.net import Maps, check_outputs, check_sides, empty_maps, probe_side
from worker.engine.netdef import NetPair, check_pair, read_net
from worker.engine.passes import optimise
from worker.engine.shapes import check_shapes
from worker.engine.torch_graph import build_graph, pack_convolutions
from worker.errors import DeviceLost, DeviceOutOfMemory, ModelError

#: Names of glibc's malloc parameters (mallopt(3)).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: How PyTorch says that memory is short, on a GPU and on a CPU.
_NO_MEMORY = ("out of memory", "can't allocate memory")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchNet:
    """A net on one device, in channels-last memory order; see :class:`worker.engine.net.Net`.

    Args:
        device: ``cpu`` or ``cuda:<i>``.
        precision: ``fp32``, ``bf16`` or ``fp16``; inputs are normalised and outputs returned in fp32 all the same.
        threads: CPU threads of this process; None: one for each core.

    Raises:
        ModelError: the net's files are corrupt, or it uses something that is not supported.
    """

    def __init__(
        self, manifest: Manifest, *, device: str = "cpu", precision: str = "fp32", threads: Optional[int] = None
    ) -> None:
        if precision not in _DTYPES:
            raise ModelError(f"There is no precision {precision!r}; there are {', '.join(_DTYPES)}.")
        self.manifest, self.device, self.precision = manifest, device, precision
        self._dtype = _DTYPES[precision]
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        net = _read(manifest)
        self._blobs = net.output_blobs
        side = probe_side(manifest)
        shapes = check_shapes(net, side, side)
        self._module: Any = build_graph(optimise(net)).to(device=device, dtype=self._dtype)
        if device == "cpu":
            _keep_freed_memory()
            pack_convolutions(self._module)
        if shapes:
            check_outputs(manifest, net.name, shapes)
        spec = manifest.input
        self._mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        self._scale, self._flip = spec.scale, spec.channel_order == "RGB"

    def __call__(self, frames: np.ndarray) -> Maps:
        """Run padded uint8 frames (N, H, W, 3), BGR."""
        maps = empty_maps(self.manifest, len(frames), frames.shape[1:3])
        self.fill([frames], [maps])
        return maps

    def fill(self, frames: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        """Run padded uint8 frames in one pass and write their maps where they are wanted."""
        check_sides(self.manifest, frames[0].shape[1:3])
        with torch.inference_mode(), _device_errors(self.device, frames[0].shape):
            pieces = [_tensor(piece).to(self.device) for piece in frames]
            # (N, H, W, 3) seen as (N, 3, H, W) is channels-last already: nothing is moved.
            batch = (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).permute(0, 3, 1, 2).to(torch.float32)
            batch = batch.flip(1) if self._flip else batch
            self._forward((batch - self._mean) * self._scale, maps)

    def run(self, batch: np.ndarray) -> Maps:
        """Run a normalised float32 batch (N, 3, H, W)."""
        check_sides(self.manifest, batch.shape[2:4])
        maps = empty_maps(self.manifest, len(batch), batch.shape[2:4])
        with torch.inference_mode(), _device_errors(self.device, batch.shape):
            self._forward(torch.from_numpy(np.ascontiguousarray(batch)).to(self.device), [maps])
        return maps

    def warm(self, sizes: Sequence[Tuple[int, int]]) -> None:
        """Run each (height, width) once, rounded up to the stride."""
        stride = self.manifest.input.stride
        for height, width in sizes:
            self(np.zeros((1, -(-height // stride) * stride, -(-width // stride) * stride, 3), np.uint8))

    def close(self) -> None:
        """Give the parameters' memory back."""
        self._module = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _forward(self, batch: torch.Tensor, maps: Sequence[Maps]) -> None:
        outputs = self._module(batch.to(self._dtype).contiguous(memory_format=torch.channels_last))
        blobs = dict(zip(self._blobs, outputs))
        first = 0
        for piece in maps:
            last = first + len(piece[0])
            for spec, target in zip((self.manifest.heatmaps, self.manifest.pafs), piece):
                torch.from_numpy(target).copy_(blobs[spec.blob][first:last, spec.start : spec.stop])
            first = last


@functools.lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Let this process keep the blocks that blobs leave behind, which the next pass takes again.

    glibc gives large blocks back to the kernel at once, and touching them anew costs 8 % of the default net's time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library: nothing to tune
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """A tensor on the array's own memory; of a read-only array PyTorch warns, and gets a copy."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def _read(manifest: Manifest) -> NetPair:
    predict = read_net(manifest.directory / PREDICT_NET)
    init = read_net(manifest.directory / INIT_NET)
    blobs = tuple(dict.fromkeys((manifest.heatmaps.blob, manifest.pafs.blob)))
    return check_pair(predict, init, manifest.input.blob, blobs)


class _device_errors:  # noqa: N801 - used like a function
    """Translates the framework's errors of the device."""

    def __init__(self, device: str, shape: Sequence[int]) -> None:
        self._device, self._shape = device, tuple(shape)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, exc: Any, traceback: Any) -> None:
        if isinstance(exc, MemoryError) or any(words in str(exc) for words in _NO_MEMORY):
            raise DeviceOutOfMemory(
                f"A batch of shape {self._shape} does not fit into the memory of {self._device}; "
                "lower target_height or set max_width."
            ) from exc
        if self._device != "cpu" and isinstance(exc, RuntimeError) and "CUDA" in str(exc):
            raise DeviceLost(f"{self._device} does not work any more ({str(exc).splitlines()[0]}).") from exc
