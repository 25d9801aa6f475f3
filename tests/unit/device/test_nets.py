"""Several nets on one device: loaded when asked for, the least recently used leaving."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List

import pytest

from worker.device import pin
from worker.device.gpus import Gpu
from worker.device.nets import Nets
from worker.device.pin import Device
from worker.engine import null_engine
from worker.errors import DeviceOutOfMemory, ModelError
from worker.settings import Settings, read_settings

ON_GPU = Device(Gpu(0, "GPU-1", "played"))


@pytest.fixture
def models(thin_net: Path, tmp_path: Path) -> Path:
    """A models directory with three nets."""
    for name in ("first", "second", "third"):
        copy = shutil.copytree(thin_net, tmp_path / name)
        document = json.loads((copy / "model.json").read_text())
        (copy / "model.json").write_text(json.dumps({**document, "name": name}))
    return tmp_path


def configured(models: Path, **variables: Any) -> Settings:
    return read_settings(
        {"POSE_MODELS_DIR": str(models), "POSE_MODEL": "first", "POSE_MODELS": "second,third", "POSE_ENGINE": "null"}
        | {name: str(value) for name, value in variables.items()}
    )


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """The nets that have given their memory back."""
    names: List[str] = []
    monkeypatch.setattr(null_engine.NullNet, "close", lambda self: names.append(self.manifest.name))
    return names


def test_a_net_is_loaded_once(models: Path) -> None:
    nets = Nets(configured(models), Device())
    assert nets.names == ("first", "second", "third")
    assert nets.get("second") is nets.get("second")
    assert nets.get("second").manifest.name == "second"


def test_where_openvino_is_missing_the_log_says_what_runs_the_nets(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(pin.importlib.util, "find_spec", lambda name: name == "torch" or None)
    Nets(configured(models, POSE_ENGINE="auto"), Device())
    assert caplog.messages == ["OpenVINO, which is faster on a CPU, is not installed here; torch runs the nets."]


def test_the_least_recently_used_leaves(models: Path, closed: List[str]) -> None:
    nets = Nets(configured(models, POSE_MAX_NETS=2), Device())
    for name in ("first", "second", "first", "third"):
        nets.get(name)
    assert closed == ["second"]


def test_where_memory_ends_nets_leave_until_it_fits(
    models: Path, closed: List[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = Nets(configured(models), Device())
    nets.get("first")
    nets.get("second")

    def warm(self: null_engine.NullNet, *_: Any) -> None:
        if len(closed) < 2:
            raise DeviceOutOfMemory("full")

    monkeypatch.setattr(null_engine.NullNet, "warm", warm)
    assert nets.get("third").manifest.name == "third"
    assert closed == ["first", "second"]


def test_a_net_that_does_not_fit_alone_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warm(self: null_engine.NullNet, *_: Any) -> None:
        raise DeviceOutOfMemory("full")

    monkeypatch.setattr(null_engine.NullNet, "warm", warm)
    with pytest.raises(DeviceOutOfMemory):
        Nets(configured(models), Device()).get("first")


def test_a_net_without_files_is_told_before_any_job(models: Path) -> None:
    with pytest.raises(ModelError, match="absent"):
        Nets(configured(models, POSE_MODELS="absent"), Device())


@pytest.mark.parametrize(
    ("device", "variables", "expected"),
    [
        (Device(), {"POSE_MAX_BATCH": 8}, ([(368, 496), (184, 250)], 1)),
        (ON_GPU, {}, ([(368, 512), (184, 256)], 4)),
        (ON_GPU, {"POSE_MAX_BATCH": 2, "POSE_WIDTH_STEP": 1}, ([(368, 496), (184, 250)], 2)),
        (ON_GPU, {"POSE_MAX_BATCH": 100}, ([(368, 512), (184, 256)], 16)),
    ],
)
def test_what_a_net_is_warmed_with(
    device: Device, variables: Dict[str, Any], expected: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU: the widths that inputs have on a canvas, in passes of each size."""
    given: List[Any] = []
    monkeypatch.setattr(null_engine.NullNet, "warm", lambda self, *args: given.append(args))
    Nets(configured(models, POSE_WARM_SIZES="368x496,184x250", **variables), device).get("first")
    assert given == [expected]
