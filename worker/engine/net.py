"""The seam between the engines and everything above them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from worker.engine.manifest import Manifest
from worker.errors import DeviceLost, DeviceOutOfMemory, ModelError

#: Heatmaps float32 (N, K + 1, h, w) and part affinity fields float32 (N, 2 L, h, w), as the manifest's channels say.
Maps = Tuple[np.ndarray, np.ndarray]
#: Waits until the maps of a pass are written; raises what :meth:`Net.fill` does.
Wait = Callable[[], None]
#: How frameworks say that memory is short, on a GPU and on a CPU. cuDNN finds no engine (its word for a way to compute)
#: where there is no room for the workspace of any.
_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "unable to find an engine")
#: What CUDA's libraries say of a question that they do not take, each time: the device itself works.
_REFUSED = ("NOT_SUPPORTED", "BAD_PARAM", "INVALID_VALUE", "ARCH_MISMATCH")


def is_short_of_memory(exc: BaseException) -> bool:
    """Whether a framework's error says so; older PyTorch has no class for it."""
    return isinstance(exc, MemoryError) or any(words in str(exc) for words in _NO_MEMORY)


class Net(ABC):
    """A loaded net on one device; each engine derives its own."""

    #: Passes of one size after which the next is as fast as any.
    warm_passes = 1
    #: Whether :meth:`launch` returns while the device still works, so that another pass can be launched meanwhile.
    overlaps = False

    def __init__(self, manifest: Manifest, device: str, precision: str) -> None:
        self.manifest, self.device, self.precision = manifest, device, precision

    def __call__(self, inputs: np.ndarray) -> Maps:
        """Run padded inputs.

        Args:
            inputs: uint8 (N, H, W, 3), BGR; H and W multiples of the stride. Normalised here, on the device.

        Returns:
            heatmaps float32 (N, K + 1, h, w) and PAFs float32 (N, 2 L, h, w) with h = H / stride, w = W / stride.

        Raises:
            DeviceOutOfMemory: the inputs did not fit.
        """
        maps = empty_maps(self.manifest, len(inputs), inputs.shape[1:3])
        self.fill([inputs], [maps])
        return maps

    def run(self, batch: np.ndarray) -> Maps:
        """Run a batch that is normalised already: float32 (N, 3, H, W) in the net's channel order."""
        maps = empty_maps(self.manifest, len(batch), batch.shape[2:4])
        self.fill_normalised(batch, maps)
        return maps

    def warm(self, sizes: Sequence[Tuple[int, int]], batch: int = 1) -> None:
        """Run each (height, width), rounded up to the stride, so that the first job pays for nothing.

        Args:
            batch: passes of 1 to so many inputs are made, or of as many as fit.

        Raises:
            DeviceOutOfMemory: not even one fits.
        """
        stride = self.manifest.input.stride
        for height, width in sizes:
            sides = -(-height // stride) * stride, -(-width // stride) * stride
            # The largest first: what it leaves of memory serves the others, which would leave pieces too small for it.
            for count in range(batch, 0, -1):
                inputs = np.zeros((count, *sides, 3), np.uint8)
                try:
                    for _ in range(self.warm_passes):
                        self(inputs)
                except DeviceOutOfMemory:
                    if count == 1:
                        raise

    @abstractmethod
    def fill(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        """Run padded inputs of equal size in one pass, and write their maps where they are wanted.

        Args:
            inputs: as for :meth:`__call__`, in pieces.
            maps: arrays of the maps' shapes, float32 or float16, that are written to, in pieces that have as many
                images together as the inputs; where they are narrower, they get the left part.

        Raises:
            DeviceOutOfMemory: the inputs did not fit.
            DeviceLost: the device does not work any more; only a new process can help.
        """

    def launch(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> Wait:
        """Begin a pass as of :meth:`fill`. Its inputs and maps are not to be touched until it has been waited for.

        Passes are done one after the other, and can be waited for in any order.

        Raises:
            DeviceOutOfMemory, DeviceLost: as :meth:`fill`; of what is found out later, the function returned.
        """
        self.fill(inputs, maps)
        return waited

    @abstractmethod
    def fill_normalised(self, batch: np.ndarray, maps: Maps) -> None:
        """Run a batch as of :meth:`run`, and write its maps into `maps`."""

    @abstractmethod
    def close(self) -> None:
        """Give the device's memory back; the net cannot be used afterwards."""


def waited() -> None:
    """What waits for maps that are written already."""


def map_shapes(manifest: Manifest, count: int, sides: Sequence[int]) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    """The shapes of heatmaps and of PAFs for `count` inputs of (height, width) `sides`."""
    height, width = (side // manifest.input.stride for side in sides)
    heatmaps, pafs = ((count, channels, height, width) for channels in manifest.channels)
    return heatmaps, pafs


def empty_maps(manifest: Manifest, count: int, sides: Sequence[int]) -> Maps:
    """Unwritten maps for `count` inputs of (height, width) `sides`."""
    heatmaps, pafs = map_shapes(manifest, count, sides)
    return np.empty(heatmaps, np.float32), np.empty(pafs, np.float32)


class Part(NamedTuple):
    """Maps of one kind to be written: `target` is to hold the blob's `images` and `channels`."""

    blob: str
    images: slice
    channels: slice
    target: np.ndarray

    def of(self, blob: Any) -> Any:
        """What `target` is to hold of `blob`, an array or tensor (N, C, h, w), without what lies right of it."""
        return blob[self.images, self.channels, :, : self.target.shape[3]]


def parts(manifest: Manifest, maps: Sequence[Maps]) -> Iterator[Part]:
    """What of a pass's output blobs goes into which of `maps`, which follow each other in the batch."""
    first = 0
    for piece in maps:
        images = slice(first, first + len(piece[0]))
        for spec, target in zip(manifest.outputs, piece):
            yield Part(spec.blob, images, slice(spec.start, spec.stop), target)
        first = images.stop


@contextmanager
def device_errors(device: str, shape: Sequence[int], broken: Sequence[str]) -> Iterator[None]:
    """Translate a framework's errors of the device.

    Args:
        shape: of the batch, for the message; empty while the net is loaded.
        broken: words of which one is in every error of a GPU after which the process can do nothing more with it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if is_short_of_memory(exc):
            what, remedy = f"A batch of shape {tuple(shape)}", "lower target_height or set max_width"
            if not shape:
                what, remedy = "The net", "serve a smaller one, or give it another device"
            raise DeviceOutOfMemory(f"{what} does not fit into the memory of {device}; {remedy}.") from exc
        refused = any(word in str(exc) for word in _REFUSED)
        if device != "cpu" and not refused and any(word in str(exc) for word in broken):
            raise DeviceLost(f"{device} does not work any more ({first_line(exc)}).") from exc
        raise


def first_line(exc: BaseException) -> str:
    """The first line of what a framework says, without the line of its source that Caffe2 begins with."""
    line = str(exc).strip().split("\n", maxsplit=1)[0]
    return line.partition("] ")[2].strip().rstrip(".") or line


def check_sides(manifest: Manifest, sides: Sequence[int]) -> None:
    """Raise ValueError unless (height, width) `sides` are what the net of `manifest` can be fed."""
    stride = manifest.input.stride
    if len(sides) != 2 or any(side < stride or side % stride for side in sides):
        raise ValueError(f"expected sides that are multiples of {stride}, got {tuple(sides)}")


def probe_side(manifest: Manifest) -> int:
    """The side of the small image that output blobs are checked with."""
    return 8 * manifest.input.stride


def check_outputs(manifest: Manifest, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Compare the shapes that output blobs have for a square image of :func:`probe_side` with the manifest.

    Raises:
        ModelError: an output blob has too few channels, or another stride than the one promised.
    """
    side = probe_side(manifest)
    for spec in manifest.outputs:
        shape = tuple(shapes[spec.blob])
        if len(shape) != 4 or shape[1] < spec.stop or shape[2:] != (8, 8):
            raise ModelError(
                f"The net {name!r} makes its output {spec.blob!r} in the shape {shape} of a {side}x{side} image, "
                f"but its model.json promises {spec.stop} channels at stride {manifest.input.stride}; correct it."
            )
