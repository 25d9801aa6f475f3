"""A worker finds its device by its name, by POSE_DEVICE, or by what is free; a GPU has one worker on a host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, Set

import pytest

from tests.support import ROOT
from worker.device import pin
from worker.device.gpus import MemoryWatch, memory, visible_gpus
from worker.device.pin import claim, own_batch, own_device, own_engine, own_precision, own_slots, own_width_step, take
from worker.engine import cores
from worker.errors import DeviceLost, SettingsError
from worker.process.fleet import own_workers
from worker.process.preflight import wrong
from worker.settings import read_settings


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Give this machine GPUs."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "support" / "fakes"))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield lambda described: monkeypatch.setenv("FAKE_GPUS", described)
    sys.modules.pop("pynvml", None)


def test_a_machine_without_a_driver_has_no_gpu(gpus: Callable[[str], None]) -> None:
    gpus("")
    assert visible_gpus() == []
    assert own_device(read_settings({})).torch_name == "cpu"
    assert list(own_workers(read_settings({}))) == ["cpu0"]
    assert list(own_workers(read_settings({"POSE_CPU_WORKERS": "3"}))) == ["cpu0", "cpu1", "cpu2"]


def test_mig_instances_count_in_place_of_their_gpu(gpus: Callable[[str], None]) -> None:
    gpus("a,b:2,old")
    assert [gpu.uuid for gpu in visible_gpus()] == ["GPU-a", "MIG-b-0", "MIG-b-1", "GPU-old"]
    assert list(own_workers(read_settings({}))) == ["gpu0", "gpu1", "gpu2", "gpu3"]


def test_a_gpu_that_is_to_be_divided_and_is_not_cannot_be_used(gpus: Callable[[str], None]) -> None:
    gpus("a:0,b")
    assert [gpu.uuid for gpu in visible_gpus()] == ["GPU-b"]


@pytest.mark.parametrize("mask", [None, "0,1,2", "GPU-a,GPU-lost,GPU-c"])
def test_a_gpu_that_does_not_answer_is_left_out_and_the_others_keep_their_numbers(
    gpus: Callable[[str], None], mask: str | None
) -> None:
    gpus("a,lost,c")
    assert [(gpu.number, gpu.uuid) for gpu in visible_gpus(mask)] == [(0, "GPU-a"), (2, "GPU-c")]


def test_a_driver_that_does_not_answer_is_no_machine_without_a_gpu(
    gpus: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus("a")
    monkeypatch.setenv("FAKE_DRIVER", "18")  # NVML_ERROR_LIB_RM_VERSION_MISMATCH: the driver was updated, not loaded
    with pytest.raises(DeviceLost, match=r"NVIDIA's driver does not answer \(error 18\); see nvidia-smi .*=cpu"):
        own_device(read_settings({}), "celery@host")
    with pytest.raises(DeviceLost):
        own_workers(read_settings({}))
    assert own_device(read_settings({"POSE_DEVICE": "cpu"}), "celery@host").gpu is None
    assert memory("GPU-a") is None


def test_a_worker_that_must_have_a_gpu_never_takes_the_cpu(gpus: Callable[[str], None]) -> None:
    must = read_settings({"POSE_DEVICE": "cuda"})
    gpus("")
    for ask in (lambda: own_device(must, "celery@host"), lambda: own_workers(must)):
        with pytest.raises(SettingsError, match="POSE_DEVICE is 'cuda': this machine shows none"):
            ask()
    with pytest.raises(SettingsError, match="There is no GPU 0, which the worker's name"):
        own_device(must, "gpu0@host")
    assert any("POSE_DEVICE is 'cuda'" in said for said in wrong({"POSE_DEVICE": "cuda"}))
    gpus("a,b")
    assert own_device(must, "gpu1@host").worker_name == "gpu1"
    assert list(own_workers(must)) == ["gpu0", "gpu1"]


def test_a_worker_keeps_the_number_that_its_gpu_had(gpus: Callable[[str], None]) -> None:
    gpus("a,c")  # the one between them is gone
    device = own_device(read_settings({"POSE_DEVICE": "GPU-c"}), "gpu2@host")
    assert (device.worker_name, device.title) == ("gpu2", "gpu2 Fake H100")


def test_numbers_of_gpus_that_differ_must_mean_one_order(
    gpus: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus("slow,a")
    with pytest.raises(SettingsError, match="CUDA_VISIBLE_DEVICES is '1', but this machine's GPUs are not alike"):
        visible_gpus("1")
    assert [gpu.uuid for gpu in visible_gpus("GPU-a")] == ["GPU-a"]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert [gpu.uuid for gpu in visible_gpus("1")] == ["GPU-a"]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("2,0", ["GPU-c", "GPU-a"]),
        ("GPU-b", ["GPU-b"]),
        ("0,9,1", ["GPU-a"]),  # what follows an entry that names nothing is hidden, as CUDA has it
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_is_respected(gpus: Callable[[str], None], mask: str, expected: list[str]) -> None:
    gpus("a,b,c")
    assert [gpu.uuid for gpu in visible_gpus(mask)] == expected


@pytest.mark.parametrize(
    ("name", "variables", "uuid"),
    [
        ("gpu1@host", {}, "GPU-b"),
        ("celery@host", {}, "GPU-a"),
        ("cpu0@host", {}, None),
        ("gpu1@host", {"POSE_DEVICE": "cuda:2"}, "GPU-c"),
        ("gpu1@host", {"POSE_DEVICE": "GPU-a"}, "GPU-a"),
        ("gpu1@host", {"POSE_DEVICE": "cpu"}, None),
    ],
)
def test_the_device_of_a_name(gpus: Callable[[str], None], name: str, variables: dict, uuid: str | None) -> None:
    gpus("a,b,c")
    device = own_device(read_settings(variables), name)
    assert (device.gpu.uuid if device.gpu else None) == uuid
    assert device.environment["CUDA_VISIBLE_DEVICES"] == (uuid or "")
    assert device.torch_name == ("cuda:0" if uuid else "cpu")


@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        ("gpu7@host", {}, "There is no GPU 7, which the worker's name"),
        ("celery@host", {"POSE_DEVICE": "cuda:5"}, "There is no GPU 5, which POSE_DEVICE asks for"),
        ("celery@host", {"POSE_DEVICE": "GPU-z"}, "There is no GPU GPU-z"),
    ],
)
def test_a_gpu_that_is_not_there_is_told_with_those_that_are(
    gpus: Callable[[str], None], name: str, variables: dict, message: str
) -> None:
    gpus("a,b")
    with pytest.raises(SettingsError, match=message) as caught:
        own_device(read_settings(variables), name)
    assert "0: Fake H100 (GPU-a), 1: Fake H100 (GPU-b)" in str(caught.value)


def test_a_gpu_has_one_worker_unless_told_to_share(gpus: Callable[[str], None], tmp_path: Path) -> None:
    unique = tmp_path.name.replace("_", "-") + "-" + str(id(tmp_path))
    gpus(f"{unique}x,{unique}y")
    first = own_device(read_settings({}), "celery@host")
    held = claim(first, share=False)
    assert held is not None
    with pytest.raises(SettingsError, match="has a worker on this host already"):
        claim(first, share=False)
    assert claim(first, share=True) is None
    second = own_device(read_settings({}), "celery@host")
    assert second.gpu is not None
    assert second.gpu.number == 1  # a worker without a number takes the first that is free
    also_held = claim(second, share=False)
    with pytest.raises(SettingsError, match="Every GPU has a worker"):
        own_device(read_settings({}), "celery@host")
    held.close()
    assert also_held is not None
    also_held.close()
    again = claim(first, share=False)
    assert again is not None
    again.close()


def test_workers_that_start_at_once_find_a_gpu_each(
    gpus: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unique = tmp_path.name.replace("_", "-") + "-" + str(id(tmp_path))
    gpus(f"{unique}x,{unique}y")
    configured = read_settings({})
    found = own_device(configured, "celery@host")
    rival = claim(found, share=False)  # between the look and the taking
    looks = [found]
    monkeypatch.setattr(pin, "own_device", lambda *given: looks.pop() if looks else own_device(*given))
    device, held = pin.take(configured, "celery@host")
    assert (device.worker_name, looks) == ("gpu1", [])
    with pytest.raises(SettingsError, match="has a worker on this host already"):
        pin.take(configured, "gpu0@host")
    for one in (rival, held):
        assert one is not None
        one.close()


def test_taken_gpus_keep_no_worker_for_the_cpu_from_starting(
    gpus: Callable[[str], None], tmp_path: Path, thin_net: Path
) -> None:
    gpus(f"{id(tmp_path)}z")
    held = claim(own_device(read_settings({}), "gpu0@host"), share=False)
    sentences = wrong({"POSE_BROKER_URL": "redis://127.0.0.1:1/0", "POSE_HEARTBEAT_DIR": str(tmp_path)})
    assert [sentence for sentence in sentences if "GPU" in sentence] == []
    assert held is not None
    held.close()


def test_the_memory_of_a_gpu_grows_in_pieces_unless_somebody_has_decided(
    gpus: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus("a")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    on_gpu = own_device(read_settings({}), "gpu0")
    assert on_gpu.environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync")
    assert on_gpu.environment["PYTORCH_CUDA_ALLOC_CONF"] == "backend:cudaMallocAsync"
    assert own_device(read_settings({}), "cpu0").environment == {"CUDA_VISIBLE_DEVICES": ""}


def test_what_a_device_is_good_for(gpus: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus("a,b")
    monkeypatch.setattr(pin, "usable_cores", lambda: 32)
    on_gpu, on_cpu = own_device(read_settings({}), "gpu0"), own_device(read_settings({}), "cpu0")
    assert own_slots(read_settings({}), on_gpu) == 14
    assert own_slots(read_settings({}), on_cpu) == 2
    assert own_slots(read_settings({"POSE_SLOTS": "5"}), on_gpu) == 5
    assert own_slots(read_settings({"POSE_SLOTS": "5", "POSE_INLINE": "1"}), on_gpu) == 1
    assert (own_batch(read_settings({}), on_gpu), own_batch(read_settings({}), on_cpu)) == (4, 1)
    assert own_batch(read_settings({"POSE_MAX_BATCH": "3"}), on_cpu) == 3
    assert (own_width_step(read_settings({}), on_gpu), own_width_step(read_settings({}), on_cpu)) == (64, 1)
    assert own_width_step(read_settings({"POSE_WIDTH_STEP": "32"}), on_cpu) == 32
    assert own_width_step(read_settings({"POSE_INLINE": "1"}), on_gpu) == 1
    assert own_precision(read_settings({}), "cuda:0") == "fp16"
    assert own_precision(read_settings({}), "cpu") == "fp32"
    assert own_precision(read_settings({"POSE_PRECISION": "bf16"}), "cuda:0") == "bf16"


def test_memory_is_without_what_the_driver_keeps_where_the_driver_says_so(gpus: Callable[[str], None]) -> None:
    gpus("a,old")
    assert memory("GPU-a") == (600_000_000, 80_000_000_000)
    assert memory("GPU-old") == (1_100_000_000, 80_000_000_000)


def test_memory_is_looked_at_elsewhere_with_the_driver_kept_open(gpus: Callable[[str], None]) -> None:
    gpus("a")
    [gpu] = visible_gpus()
    driver = sys.modules["pynvml"]
    before, watch = driver.opened, MemoryWatch(gpu)  # type: ignore[attr-defined]
    for _ in range(3):
        watch._look()
        assert watch.seen == (600_000_000, 80_000_000_000)
    assert driver.opened == before + 1  # type: ignore[attr-defined]
    gpus("lost")
    watch._handle = None
    watch._look()
    assert watch.seen is None
    gpus("a")
    watch._look()
    assert watch.seen is not None


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 32),
        ("0::/\n", {"cpu.max": "max 100000"}, 32),
        ("0::/\n", {"cpu.max": "800000 100000"}, 8),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/pods/one\n", {"pods/cpu.max": "400000 100000", "pods/one/cpu.max": "max 100000"}, 4),
        ("4:cpu,cpuacct:/docker/x\n0::/\n", {"cpu/cpu.cfs_quota_us": "600000", "cpu/cpu.cfs_period_us": "100000"}, 6),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 32),
    ],
)
def test_cores_are_those_of_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: Dict[str, str], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(32)))
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path)
    monkeypatch.setattr(cores, "_OWN", tmp_path / "own")
    assert cores.usable_cores() == expected


def test_what_runs_the_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"openvino", "torch"}
    monkeypatch.setattr(pin.importlib.util, "find_spec", lambda name: name in installed or None)
    auto = read_settings({})
    assert (own_engine(auto, "cuda:0"), own_engine(auto, "cpu")) == ("torch", "openvino")
    assert own_engine(read_settings({"POSE_ENGINE": "torch"}), "cpu") == "torch"
    assert own_engine(read_settings({"POSE_ENGINE": "openvino"}), "cpu") == "openvino"
    installed.remove("openvino")
    assert (own_engine(auto, "cuda:0"), own_engine(auto, "cpu")) == ("torch", "torch")


@pytest.mark.parametrize(
    ("engine", "device", "installed", "missing"),
    [
        ("auto", "cuda:0", {"openvino"}, "torch"),
        ("auto", "cpu", set(), "openvino or torch"),
        ("torch", "cpu", {"openvino"}, "torch"),
        ("openvino", "cpu", {"torch"}, "openvino"),
    ],
)
def test_what_is_to_run_the_nets_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, engine: str, device: str, installed: Set[str], missing: str
) -> None:
    monkeypatch.setattr(pin.importlib.util, "find_spec", lambda name: name in installed or None)
    with pytest.raises(SettingsError) as caught:
        own_engine(read_settings({"POSE_ENGINE": engine}), device)
    assert str(caught.value) == (
        f"POSE_ENGINE={engine} needs {missing} to run nets on {device}, which is not installed here; "
        "pip install -r requirements.txt."
    )


def test_openvino_on_a_gpu_is_refused(gpus: Callable[[str], None]) -> None:
    gpus("a")
    sentence = "POSE_ENGINE=openvino runs nets on a CPU only, and this worker has cuda:0; set POSE_DEVICE=cpu, or "
    for device in ("auto", "cuda:0"):
        with pytest.raises(SettingsError, match=sentence):
            take(read_settings({"POSE_ENGINE": "openvino", "POSE_DEVICE": device}), "gpu0@host")
    assert any(sentence in said for said in wrong({"POSE_ENGINE": "openvino", "POSE_DEVICE": "cuda:0"}))
