"""The genuine Caffe2 runtime as an engine: the same files, executed by Caffe2 itself.

Caffe2 was last part of torch 1.10.2, for Python 3.9 at most: deploy/requirements-caffe2.txt. It runs whatever operators
it has; no list of ours limits it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence, Set, Tuple

import numpy as np

from worker.engine.cores import usable_cores
from worker.engine.manifest import INIT_NET, PREDICT_NET, Manifest
from worker.engine.net import Maps, Net, check_outputs, check_sides, device_errors, first_line, parts, probe_side
from worker.engine.netdef import Operator, check_blobs, read_net
from worker.errors import ModelError

logger = logging.getLogger(__name__)

#: What is in every error of a GPU after which the process can do nothing more with it.
_BROKEN = ("cuda", "CUDA")
#: Caffe2 has one set of workspaces for a process; each net has its own among them.
_numbers = itertools.count()


class Caffe2Net(Net):
    """A net in a Caffe2 workspace of its own.

    Args:
        device: ``cpu`` or ``cuda:<i>``.
        precision: ``fp32``; Caffe2 computes these nets in nothing else.
        threads: CPU threads; fixed by the first net of a process. None: one for each core.

    Raises:
        ModelError: Caffe2 is not installed, or cannot make the net.
    """

    def __init__(self, manifest: Manifest, *, device: str, precision: str, threads: Optional[int]) -> None:
        if precision != "fp32":
            raise ModelError(f"Caffe2 does not run nets in {precision}; set POSE_PRECISION to fp32.")
        super().__init__(manifest, device, precision)
        core, self._workspace = _import_caffe2(threads or usable_cores())
        self._option = _device_option(core, device)
        self._blobs = manifest.output_blobs
        spec = manifest.input
        self._mean = np.array(spec.mean, np.float32).reshape(1, 3, 1, 1)
        self._scale = np.float32(spec.scale)
        self._home = f"pose-{next(_numbers)}"
        predict, init = (self._read(manifest.directory / name) for name in (PREDICT_NET, INIT_NET))
        _check(self._workspace, predict, init, manifest, self._blobs)
        self._net = predict.name or "net"
        predict.name = self._net
        _share_memory(predict, {spec.blob, *self._blobs})
        with self._entered():
            self._create(predict, init)
            side = probe_side(manifest)
            made = self._forward(np.zeros((1, 3, side, side), np.float32))
        check_outputs(manifest, self._net, {blob: values.shape for blob, values in zip(self._blobs, made)})

    def fill(self, inputs: Sequence[np.ndarray], maps: Sequence[Maps]) -> None:
        """Run padded uint8 inputs in one pass and write their maps where they are wanted."""
        pixels = np.concatenate(inputs) if len(inputs) > 1 else inputs[0]
        if self.manifest.input.channel_order == "RGB":
            pixels = pixels[..., ::-1]
        self._run((pixels.transpose(0, 3, 1, 2) - self._mean) * self._scale, maps)

    def fill_normalised(self, batch: np.ndarray, maps: Maps) -> None:
        """Run a normalised batch and write its maps."""
        self._run(batch, [maps])

    def close(self) -> None:
        """Give the workspace's memory back."""
        with self._entered():
            self._workspace.ResetWorkspace()

    def _run(self, batch: np.ndarray, maps: Sequence[Maps]) -> None:
        check_sides(self.manifest, batch.shape[2:4])
        with self._entered(), device_errors(self.device, batch.shape, _BROKEN):
            blobs = dict(zip(self._blobs, self._forward(batch)))
        for part in parts(self.manifest, maps):
            part.target[...] = part.of(blobs[part.blob])

    def _forward(self, batch: np.ndarray) -> Tuple[np.ndarray, ...]:
        self._workspace.FeedBlob(
            self.manifest.input.blob, np.ascontiguousarray(batch, np.float32), device_option=self._option
        )
        self._workspace.RunNet(self._net)
        return tuple(self._workspace.FetchBlob(blob) for blob in self._blobs)

    def _read(self, path: Path) -> Any:
        from caffe2.proto import caffe2_pb2

        read_net(path)  # its errors say what is wrong with the file
        net = caffe2_pb2.NetDef()
        net.ParseFromString(path.read_bytes())
        net.device_option.CopyFrom(self._option)
        for operator in net.op:
            operator.device_option.CopyFrom(self._option)
        return net

    def _create(self, predict: Any, init: Any) -> None:
        try:
            self._workspace.RunNetOnce(init)
            self._workspace.FeedBlob(
                self.manifest.input.blob, np.zeros((1, 3, 8, 8), np.float32), device_option=self._option
            )
            self._workspace.CreateNet(predict)
        except RuntimeError as exc:
            raise ModelError(f"Caffe2 cannot make the net {self._net!r}: {first_line(exc)}.") from exc

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """This net's workspace is the current one."""
        before = self._workspace.CurrentWorkspace()
        self._workspace.SwitchWorkspace(self._home, True)
        try:
            yield
        finally:
            self._workspace.SwitchWorkspace(before, True)


@functools.lru_cache(maxsize=1)
def _import_caffe2(threads: int) -> Tuple[Any, Any]:
    """Caffe2's modules core and workspace, set up once for a process."""
    try:
        from caffe2.python import core, workspace
    except ImportError as exc:
        raise ModelError(
            f"Caffe2 cannot be loaded here ({exc}); use Python 3.9 with deploy/requirements-caffe2.txt, or set "
            "POSE_ENGINE to torch."
        ) from exc
    core.GlobalInit(["caffe2", f"--caffe2_omp_num_threads={threads}", f"--caffe2_mkl_num_threads={threads}"])
    return core, workspace


def _check(workspace: Any, predict: Any, init: Any, manifest: Manifest, outputs: Sequence[str]) -> None:
    """What Caffe2 itself would say late, or without naming the blob."""
    name, known = predict.name or "the net", set(workspace.RegisteredOperators())
    operators = [Operator(op.type, tuple(op.input), tuple(op.output), {}) for op in (*init.op, *predict.op)]
    for operator in operators:
        if operator.type not in known:
            raise operator.fault(name, ", which this Caffe2 does not have")
    check_blobs(name, operators, {manifest.input.blob}, outputs)


def _share_memory(predict: Any, fixed: Set[str]) -> None:
    """Let blobs whose lifetimes do not meet share one name, and so one memory (Caffe2's memonger)."""
    from caffe2.python import memonger

    made = {blob for op in predict.op for blob in op.output}
    read = {blob for op in predict.op for blob in op.input}
    try:
        optimised = memonger.optimize_inference_fast(predict, (read - made) | fixed)
    except RuntimeError as exc:  # a net that already shares names, say: it runs as it is
        logger.warning("memory is not shared between the blobs of %s: %s", predict.name, first_line(exc))
        return
    del predict.op[:]
    predict.op.extend(optimised.op)


def _device_option(core: Any, device: str) -> Any:
    from caffe2.proto import caffe2_pb2

    if device == "cpu":
        return core.DeviceOption(caffe2_pb2.CPU)
    if not device.startswith("cuda"):
        raise ModelError(f"Caffe2 knows no device {device!r}; use cpu or cuda:0.")
    return core.DeviceOption(caffe2_pb2.CUDA, int(device.partition(":")[2] or 0))
