"""Each net that is known by heart comes from a server, is converted, runs, is inspected, and is exported."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Dict, Mapping

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from models import export, fetch, inspect
from models.architectures import ARCHITECTURES, Architecture
from models.catalog import find_entry, read_catalog
from tests.support.caffe_nets import write_caffemodel
from tests.support.cases import random_weights
from tests.support.servers import serving, whole
from worker.engine import load
from worker.engine.netdef import read_pair

NAMES = sorted(name for name, entry in read_catalog().items() if entry.architecture)


@pytest.fixture(autouse=True)
def _thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers, but wide ones of 8 channels: 50 million weights take long."""
    conv = Architecture.conv

    def thin(net: Architecture, name: str, source: str, channels: int, *args: Any, **more: Any) -> str:
        if more.get("group", 1) > 1:
            channels = more["group"] = net.channels[source]
        return conv(net, name, source, channels if channels < 96 else 8, *args, **more)

    monkeypatch.setattr(Architecture, "conv", thin)


def _file(kind: str, weights: Mapping[str, np.ndarray], path: Path) -> bytes:
    """Weights as their authors give them away."""
    if kind == "pytorch":
        buffer = io.BytesIO()
        state = {name: torch.from_numpy(values) for name, values in weights.items()}
        torch.save({"state_dict": state, "iter": 370000}, buffer)
        return buffer.getvalue()
    layers: Dict[str, Any] = {}
    for blob, values in weights.items():
        layers.setdefault(blob[:-2], []).append(values)
    return write_caffemodel(path, layers).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_from_the_server_to_another_runtime(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = find_entry(name)
    weights = random_weights(4, ARCHITECTURES[entry.architecture]())
    if entry.files[0].format == "pytorch" and not hasattr(torch.serialization, "add_safe_globals"):
        pytest.skip("this torch cannot read files safely")
    data = _file(entry.files[0].format, weights, tmp_path / "file")
    changes = {"sha256": hashlib.sha256(data).hexdigest(), "md5": "", "bytes": len(data)}
    folder = ["--models-dir", str(tmp_path)]
    with serving(whole(data)) as server:
        file = entry.files[0].model_copy(update={**changes, "urls": (f"{server.url}/{entry.files[0].name}",)})
        monkeypatch.setattr(fetch, "find_entry", lambda *_: entry.model_copy(update={"files": (file,)}))
        done = CliRunner().invoke(fetch.main, [name, "--accept-licence", *folder])
    assert done.exit_code == 0, done.output
    assert f"fetched and verified (licence: {entry.licence})" in done.output
    net = load(tmp_path / name)
    found = read_pair(net.manifest).parameters
    assert set(found) == set(weights)
    assert all(np.array_equal(found[blob], values) for blob, values in weights.items())
    inspected = CliRunner().invoke(inspect.main, [name, "--size", "64x80", *folder])
    assert inspected.exit_code == 0, inspected.output
    exported = CliRunner().invoke(export.main, [name, str(tmp_path / "net.onnx"), *folder])
    assert exported.exit_code == 0, exported.output
    assert (tmp_path / "net.onnx").stat().st_size > len(data) / 2
