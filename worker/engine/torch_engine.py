"""The default engine: a NetDef executed by PyTorch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
from typing import Any, Iterator, Optional, Sequence

import numpy as np
import torch

from worker.engine.cores import usable_cores
from worker.engine.manifest import Manifest
from worker.engine.net import Maps, Net, Wait, check_outputs, check_sides, device_errors, parts, probe_side
from worker.engine.netdef import read_pair
from worker.engine.passes import optimise, pad_channels
from worker.engine.shapes import check_shapes
from worker.engine.torch_compiled import MODES, PATIENCE, CudaGraphs
from worker.engine.torch_copies import Direct, Staged
from worker.engine.torch_graph import build_graph
from worker.errors import ModelError

logger = logging.getLogger(__name__)

#: Names of glibc's malloc parameters (mallopt(3)).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: What is in every error of a GPU after which the process can do nothing more with it.
_BROKEN = ("CUDA", "CUDNN", "CUBLAS")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchNet(Net):
    """A net on one device, in channels-last memory order.

    Args:
        device: ``cpu`` or ``cuda:<i>``.
        precision: ``fp32``, ``bf16`` or ``fp16``; inputs are normalised and maps returned in fp32 all the same.
        threads: CPU threads of this process; None: one for each core.
        compile: ``off`` or ``graph``; see :mod:`worker.engine.torch_compiled`; CUDA graphs mean
            nothing on a CPU.
        pad, fuse: whether a GPU's net has its channels padded to multiples of 8, and Relu in the kernel of its
            convolution; benchmarks ask what each brings.

    Raises:
        ModelError: the net's files are corrupt, or it uses something that is not supported.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        device: str,
        precision: str,
        threads: Optional[int],
        compile: str,
        pad: bool = True,
        fuse: bool = True,
    ) -> None:
        if precision not in _DTYPES:
            raise ModelError(f"There is no precision {precision!r}; there are {', '.join(_DTYPES)}.")
        if compile not in MODES:
            raise ModelError(f"There is no way {compile!r} to compile a net; set POSE_COMPILE to {', '.join(MODES)}.")
        if device == "cpu" and precision != "fp32" and not _cpu_computes(precision):
            logger.warning("This CPU has no instructions for %s; %s runs in fp32.", precision, manifest.name)
            precision = "fp32"
        super().__init__(manifest, device, precision)
        self._dtype = _DTYPES[precision]
        torch.set_num_threads(threads or usable_cores())
        torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32; who wants less asks for it
        net = read_pair(manifest)
        self._blobs = net.output_blobs
        side = probe_side(manifest)
        shapes = check_shapes(net, side, side)
        on_gpu, net = device != "cpu", optimise(net)
        module: Any = build_graph(pad_channels(net) if on_gpu and pad else net, fuse=on_gpu and fuse)
        if shapes:
            check_outputs(manifest, net.name, shapes)
        spec = manifest.input
        self._scale, self._flip = spec.scale, spec.channel_order == "RGB"
        with device_errors(device, (), _BROKEN):
            #: What runs :meth:`normalised` inputs, and returns the net's output blobs.
            self.module: Any = module.to(device=device, dtype=self._dtype)
            self._mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        self._copies: Any = Staged(device) if on_gpu else Direct()
        self.overlaps = on_gpu
        if not on_gpu:
            _keep_freed_memory()
        elif compile == "graph":
            self.module, self.warm_passes = CudaGraphs(self.module), PATIENCE

    def fill(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        """Run padded uint8 inputs in one pass and write their maps where they are wanted."""
        self.launch(inputs, maps)()

    def launch(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> Wait:
        """Begin a pass; on a GPU, this returns as soon as the GPU knows of it."""
        with self._pass(inputs[0].shape, inputs[0].shape[1:3]):
            wait = self._run(self.normalised(inputs), maps)

        def translated() -> None:
            with device_errors(self.device, inputs[0].shape, _BROKEN):
                wait()

        return translated

    def fill_normalised(self, batch: np.ndarray, maps: Maps) -> None:
        """Run a normalised batch and write its maps."""
        with self._pass(batch.shape, batch.shape[2:4]):
            given = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device, self._dtype)
            self._run(given.contiguous(memory_format=torch.channels_last), [maps])()

    def normalised(self, inputs: Sequence[np.ndarray]) -> torch.Tensor:
        """Padded uint8 inputs as what the module takes: (N, 3, H, W) on the device, in the net's precision."""
        # (N, H, W, 3) seen as (N, 3, H, W) is channels-last already: nothing is moved.
        batch = self._copies.upload(inputs).permute(0, 3, 1, 2).to(torch.float32)
        batch = batch.flip(1) if self._flip else batch
        return batch.sub_(self._mean).mul_(self._scale).to(self._dtype)

    def close(self) -> None:
        """Give the parameters' memory back."""
        self.module = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def _pass(self, shape: Sequence[int], sides: Sequence[int]) -> Iterator[None]:
        check_sides(self.manifest, sides)
        with torch.inference_mode(), device_errors(self.device, shape, _BROKEN):
            yield

    def _run(self, batch: torch.Tensor, maps: Sequence[Maps]) -> Wait:
        blobs = dict(zip(self._blobs, self.module(batch)))
        return self._copies.download((part.of(blobs[part.blob]), part.target) for part in parts(self.manifest, maps))


def _cpu_computes(precision: str) -> bool:
    """Whether this CPU has instructions for `precision`, ``bf16`` or ``fp16``."""
    try:
        return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported")())
    except (AttributeError, RuntimeError):  # an older torch, or one without oneDNN
        return False


@functools.lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Let this process keep the blocks that blobs leave behind, which the next pass takes again.

    glibc gives large blocks back to the kernel at once, and touching them anew costs 8 % of the default net's time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library: nothing to tune
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
