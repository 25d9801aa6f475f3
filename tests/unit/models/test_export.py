"""The command that writes a net as ONNX: a file that runs elsewhere, whole or not at all."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from models import export
from tests.support.documents import example
from tests.support.nets import write_pose_net
from worker.engine import load


def _export(folder: Path, out: Path, net: str = "small") -> Result:
    return CliRunner().invoke(export.main, [net, str(out), "--models-dir", str(folder)])


def test_the_file_runs_in_another_runtime_at_any_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net = load(write_pose_net(tmp_path / "small"))
    out = tmp_path / "new" / "small.onnx"
    ended = _export(tmp_path, out)
    assert (ended.exit_code, ended.stdout.startswith(f"{out}: 0.0 MB, ")) == (0, True)
    other = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 24, 16), (2, 3, 8, 40)):
        batch = np.random.default_rng(1).random(shape, np.float32)
        np.testing.assert_allclose(
            other.run(None, {"x": batch})[0], np.concatenate(net.run(batch), 1), rtol=1e-4, atol=1e-4
        )


def test_the_command_of_the_document(thin_net: Path, tmp_path: Path) -> None:
    *command, out = shlex.split(example("docs/models.md", "sh", "models.export"))
    assert command[:3] == ["python", "-m", "models.export"]
    ended = CliRunner().invoke(export.main, [*command[3:], str(tmp_path / out), "--models-dir", str(thin_net.parent)])
    assert (ended.exit_code, (tmp_path / out).stat().st_size > 7e6) == (0, True)
    assert "onnxruntime makes the same maps" in ended.stdout or not importlib.util.find_spec("onnxruntime")


def test_a_net_by_its_folder(tmp_path: Path) -> None:
    directory = write_pose_net(tmp_path / "small")
    assert _export(tmp_path / "models", tmp_path / "out.onnx", str(directory)).exit_code == 0


@pytest.mark.parametrize(
    ("operators", "sentence"),
    [
        (None, "There is no net in "),
        ([("SpatialBN", ["x", "b", "b", "b", "b"], ["y"], {})], "The net 'small' has an operator SpatialBN making"),
        (
            [("Relu", ["w"], ["v"], {}), ("Conv", ["x", "v", "b"], ["y"], {"kernel": 8})],
            "The net 'small' has an operator Conv making blob 'y' that needs blob 'v' to be a parameter.",
        ),
    ],
)
def test_what_cannot_be_exported_leaves_the_file_as_it_was(operators: object, sentence: str, tmp_path: Path) -> None:
    if operators:
        write_pose_net(tmp_path / "small", operators)  # type: ignore[arg-type]
    out = tmp_path / "small.onnx"
    out.write_bytes(b"before")
    ended = _export(tmp_path, out)
    assert ended.exit_code == 1
    assert ended.output.startswith(f"models.export: {sentence}")
    assert ended.output.count("\n") == 1
    assert out.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} <= {"small", "small.onnx"}


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    write_pose_net(tmp_path / "small")
    (tmp_path / "file").write_bytes(b"")
    ended = _export(tmp_path, tmp_path / "file" / "small.onnx")
    assert ended.exit_code == 1
    assert ended.output.startswith("models.export: ")
    assert "cannot be written (" in ended.output


def test_the_check_finds_a_model_that_computes_something_else(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    net = load(write_pose_net(tmp_path / "small"))
    other = write_pose_net(
        tmp_path / "other", parameters={"w": np.ones((57, 3, 8, 8), np.float32), "b": np.ones(57, np.float32)}
    )
    export.check(export.export(net.manifest), net.manifest)
    with pytest.raises(export.ModelError, match=r"onnxruntime makes other maps of the net 'small', by"):
        export.check(export.export(load(other).manifest), net.manifest)
