"""Which device this worker owns, found before anything initialises CUDA, and held against others of this host."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

from worker.device.gpus import Gpu, visible_gpus
from worker.engine.cores import usable_cores
from worker.errors import SettingsError
from worker.settings import Settings

#: How PyTorch takes and keeps a GPU's memory.
_ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
_GPU_NAME = re.compile(r"gpu(\d+)\b")


class Device(NamedTuple):
    """The device of one worker.

    Attributes:
        gpu: None: the CPU.
    """

    gpu: Optional[Gpu] = None

    @property
    def torch_name(self) -> str:
        """What the process that owns the device calls it; it sees no other."""
        return "cuda:0" if self.gpu else "cpu"

    @property
    def worker_name(self) -> str:
        """What its worker is called before the ``@host``."""
        return f"gpu{self.gpu.number}" if self.gpu else "cpu0"

    @property
    def title(self) -> str:
        """What results say of it."""
        return f"gpu{self.gpu.number} {self.gpu.name}" if self.gpu else "cpu"

    @property
    def environment(self) -> Dict[str, str]:
        """What the process that owns it is started with."""
        if self.gpu is None:
            return {"CUDA_VISIBLE_DEVICES": ""}
        # PyTorch gives memory back in small pieces, so inputs of many sizes leave no gaps that nothing fits into.
        segments = os.environ.get(_ALLOCATOR, "expandable_segments:True")
        return {"CUDA_VISIBLE_DEVICES": self.gpu.uuid, _ALLOCATOR: segments}

    def __str__(self) -> str:
        return f"GPU {self.gpu}" if self.gpu else "the CPU"


def own_device(settings: Settings, worker: str = "") -> Device:
    """The device of the worker called `worker` (``gpu3@host``).

    POSE_DEVICE decides; else the name: ``gpu<i>`` is the i-th visible GPU, ``cpu<i>`` the CPU; else the first GPU
    that no worker of this host owns; else the CPU, unless POSE_DEVICE is ``cuda``.

    Raises:
        SettingsError: there is no such GPU, or all are owned by others.
        DeviceLost: the driver does not answer.
    """
    wanted = settings.device
    if wanted == "cpu" or (wanted == "auto" and worker.startswith("cpu")):
        return Device()
    gpus = visible_gpus()
    named = _GPU_NAME.match(worker)
    if wanted.startswith("cuda:"):
        return Device(_pick(gpus, int(wanted[len("cuda:") :]), "POSE_DEVICE"))
    if wanted not in ("auto", "cuda"):
        gpu = _pick(gpus, wanted, "POSE_DEVICE")
        # Named by UUID, it keeps the number that it was named by, also when there are fewer GPUs than there were.
        return Device(gpu._replace(number=int(named.group(1))) if named else gpu)
    if named:
        return Device(_pick(gpus, int(named.group(1)), f"the worker's name {worker!r}"))
    if gpus:
        return Device(_first_free(gpus, settings.share_device))
    if wanted == "cuda":
        raise SettingsError(f"POSE_DEVICE is 'cuda': {_listed(gpus)}")
    return Device()


def take(settings: Settings, worker: str) -> Tuple[Device, Optional[socket.socket]]:
    """The device of the worker called `worker`, held as by :func:`claim`.

    Raises:
        SettingsError: as :func:`own_device`, :func:`own_engine` and :func:`claim`.
    """
    while True:
        device = own_device(settings, worker)
        own_engine(settings, device.torch_name)
        try:
            return device, claim(device, settings.share_device)
        except SettingsError:
            if settings.device not in ("auto", "cuda") or _GPU_NAME.match(worker):
                raise
            # Another worker has taken it in the meantime; if that was the last, own_device says so.


def own_precision(settings: Settings, device: str) -> str:
    """The arithmetic to use on `device`: as set by POSE_PRECISION, else fp16 on a GPU and fp32 on a CPU."""
    if settings.precision != "auto":
        return settings.precision
    return "fp16" if device.startswith("cuda") else "fp32"


def own_engine(settings: Settings, device: str) -> str:
    """What runs nets on `device`: as set by POSE_ENGINE, else torch on a GPU and OpenVINO, if it is here, on a CPU.

    Raises:
        SettingsError: OpenVINO is to run them on a GPU, or what is to run them is not installed.
    """
    on_gpu = device.startswith("cuda")
    if settings.engine == "openvino" and on_gpu:
        raise SettingsError(
            f"POSE_ENGINE=openvino runs nets on a CPU only, and this worker has {device}; set POSE_DEVICE=cpu, or "
            "POSE_ENGINE=auto."
        )
    if settings.engine not in ("auto", "torch", "openvino"):
        return settings.engine
    best = "torch" if on_gpu else "openvino"
    wanted = [best, "torch"] if settings.engine == "auto" else [settings.engine]
    for engine in wanted:
        if importlib.util.find_spec(engine):
            return engine
    raise SettingsError(
        f"POSE_ENGINE={settings.engine} needs {' or '.join(dict.fromkeys(wanted))} to run nets on {device}, which is "
        "not installed here; pip install -r requirements.txt."
    )


def own_slots(settings: Settings, device: Device) -> int:
    """Jobs in work at a time: as set by POSE_SLOTS, else one for each core of the GPU's share but two, else 2.

    On a GPU the net process and the parent need a core each: a GPU that waits for them costs more than a slot brings.
    On a CPU the net itself fills the cores; a second slot reads and draws beside it.
    """
    if settings.inline:
        return 1
    if settings.slots:
        return settings.slots
    if device.gpu is None:
        return 2
    return max(2, min(32, usable_cores() // max(1, len(visible_gpus())) - 2))


def own_batch(settings: Settings, device: Device) -> int:
    """Most inputs in one pass: as set by POSE_MAX_BATCH; else 4 on a GPU, and 1 on a CPU, where it is fastest.

    In fp16 at 368×656 the CMU net has 105 MB of weights, and 62 MB of activations for each input of a pass: four take
    0.35 GB, eight would take 0.6 GB.
    """
    return settings.max_batch or (4 if device.gpu else 1)


def own_width_step(settings: Settings, device: Device) -> int:
    """What widths of inputs are rounded up to, in pixels, so that they share a pass: as set by POSE_WIDTH_STEP; else
    64 on a GPU, and 1 on a CPU, where passes of several inputs gain nothing, or where each slot has its own net."""
    if settings.inline:
        return 1
    return settings.width_step or (64 if device.gpu else 1)


def claim(device: Device, share: bool) -> Optional[socket.socket]:
    """Hold a GPU against the other workers of this host, for as long as the returned socket is open.

    An abstract socket: it lies in no file system and ends with its process, whatever kills that.

    Raises:
        SettingsError: another worker holds it.
    """
    if device.gpu is None or share:
        return None
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0pose-worker/{device.gpu.uuid}")
    except OSError as exc:
        held.close()
        raise SettingsError(
            f"GPU {device.gpu} has a worker on this host already; give this one another GPU, "
            "or set POSE_SHARE_DEVICE=1 for both."
        ) from exc
    return held


def _pick(gpus: List[Gpu], wanted: Union[int, str], why: str) -> Gpu:
    """The GPU of that number or UUID."""
    for gpu in gpus:
        if wanted in (gpu.number, gpu.uuid):
            return gpu
    raise SettingsError(f"There is no GPU {wanted}, which {why} asks for; {_listed(gpus)}")


def _first_free(gpus: List[Gpu], share: bool) -> Gpu:
    for gpu in gpus:
        try:
            held = claim(Device(gpu), share)
        except SettingsError:
            continue
        if held is not None:
            held.close()
        return gpu
    raise SettingsError(f"Every GPU has a worker on this host already; {_listed(gpus)}")


def _listed(gpus: List[Gpu]) -> str:
    if not gpus:
        return "this machine shows none (see nvidia-smi and CUDA_VISIBLE_DEVICES)."
    return "there are " + ", ".join(map(str, gpus)) + "."
