"""The engine for CPUs: a NetDef as an ONNX model in memory, executed by OpenVINO."""

from __future__ import annotations

import logging
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from worker.engine.cores import usable_cores
from worker.engine.manifest import Manifest
from worker.engine.net import Maps, Net, check_outputs, check_sides, device_errors, first_line, parts, probe_side
from worker.engine.netdef import read_pair
from worker.engine.onnx import to_onnx
from worker.engine.passes import optimise
from worker.engine.shapes import check_shapes
from worker.errors import ModelError

logger = logging.getLogger(__name__)

#: Precision → what OpenVINO calls it as a hint, and as a capability of a CPU.
_PRECISIONS = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}
#: Most kernels kept for input sizes that were met before. OpenVINO's own number, 5000, takes up to 0.5 GB; with 256,
#: forty sizes in turn took 20 % more processor time.
_KERNELS = 1024


class OpenVinoNet(Net):
    """A net on the CPU, compiled once for all input sizes.

    Args:
        device: ``cpu``.
        precision: ``fp32``, ``bf16`` or ``fp16``; inputs are normalised and maps returned in fp32 all the same.
        threads: CPU threads; None: one for each core.

    Raises:
        ModelError: OpenVINO is not installed, the device is a GPU, the net's files are corrupt, or it uses something
            that is not supported.
    """

    def __init__(
        self, manifest: Manifest, *, device: str = "cpu", precision: str = "fp32", threads: Optional[int] = None
    ) -> None:
        if precision not in _PRECISIONS:
            raise ModelError(f"There is no precision {precision!r}; there are {', '.join(_PRECISIONS)}.")
        if device != "cpu":
            raise ModelError(f"OpenVINO runs nets on a CPU only, not on {device}; set POSE_ENGINE=torch.")
        core = _core()
        if _PRECISIONS[precision][1] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            logger.warning("This CPU has no instructions for %s; %s runs in fp32.", precision, manifest.name)
            precision = "fp32"
        super().__init__(manifest, device, precision)
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision][0],
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
            "ENABLE_CPU_PINNING": False,  # slots and other workers use the same cores
        }
        model, self._blobs = _model(manifest)
        try:
            read = core.read_model(model)
            del model  # weights are large, and OpenVINO has its own by now
            self._request: Any = core.compile_model(read, "CPU", hints).create_infer_request()
        except RuntimeError as exc:
            raise ModelError(
                f"OpenVINO cannot make the net {manifest.name!r} ({first_line(exc)}); set POSE_ENGINE=torch."
            ) from exc
        spec = manifest.input
        self._mean = np.array(spec.mean, np.float32).reshape(1, 3, 1, 1)
        self._scale, self._flip = np.float32(spec.scale), spec.channel_order == "RGB"

    def fill(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        """Run padded uint8 inputs in one pass and write their maps where they are wanted."""
        height, width = inputs[0].shape[1:3]
        batch = np.empty((sum(map(len, inputs)), 3, height, width), np.float32)
        first = 0
        for piece in inputs:
            pixels = piece[..., ::-1] if self._flip else piece
            np.subtract(pixels.transpose(0, 3, 1, 2), self._mean, out=batch[first : first + len(piece)])
            first += len(piece)
        batch *= self._scale
        self._run(batch, maps)

    def fill_normalised(self, batch: np.ndarray, maps: Maps) -> None:
        """Run a normalised batch and write its maps."""
        self._run(np.ascontiguousarray(batch, np.float32), [maps])

    def close(self) -> None:
        """Give the parameters' memory back."""
        self._request = None

    def _run(self, batch: np.ndarray, maps: Sequence[Maps]) -> None:
        check_sides(self.manifest, batch.shape[2:4])
        with device_errors(self.device, batch.shape, ()):
            # Shared: `batch` is read and the results are seen where they lie, so the maps are copied once.
            made = self._request.infer([batch], share_inputs=True, share_outputs=True)
        blobs = dict(zip(self._blobs, made.values()))
        for part in parts(self.manifest, maps):
            part.target[...] = part.of(blobs[part.blob])


def _model(manifest: Manifest) -> Tuple[bytes, Sequence[str]]:
    """The net as an ONNX model, and the names of its outputs in their order."""
    net = read_pair(manifest)
    side = probe_side(manifest)
    shapes = check_shapes(net, side, side)
    if shapes:
        check_outputs(manifest, net.name, shapes)
    return to_onnx(optimise(net)).SerializeToString(), net.output_blobs


def _core() -> Any:
    try:
        import openvino
    except ImportError as exc:
        raise ModelError(
            f"OpenVINO cannot be loaded here ({exc}); pip install openvino, or set POSE_ENGINE=torch."
        ) from exc
    return openvino.Core()
