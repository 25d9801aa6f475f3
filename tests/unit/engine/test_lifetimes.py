"""Blobs live from the operator that makes them to the last that reads them: by count, and as measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from models.lifetimes import Step, steps
from tests.support.nets import checked, pose_parameters, write_pose_net
from worker.engine import load
from worker.engine.manifest import OutputSpec, read_manifest
from worker.engine.netdef import read_pair
from worker.engine.passes import optimise


def _live(found: List[Step]) -> List[int]:
    """In elements."""
    return [step.live // 4 for step in found]


def test_a_chain_holds_two_blobs_at_a_time() -> None:
    # x 24 → a 48 → b 12 → y 12 elements
    net = checked(
        [
            ("Conv", ["x", "w"], ["a"], {"kernel": 1}),
            ("MaxPool", ["a"], ["b"], {"kernel": 2, "stride": 2}),
            ("Sigmoid", ["b"], ["y"], {}),
        ],
        {"w": np.ones((12, 6, 1, 1), np.float32)},
    )
    found = steps(net, (1, 6, 2, 2))
    assert _live(found) == [24 + 48, 48 + 12, 12 + 12]
    assert [step.held // 4 for step in found] == [72, 84, 96]
    assert [step.flop for step in found] == [2 * 48 * 6, 0, 0]
    assert _live(steps(net, (3, 6, 2, 2))) == [3 * size for size in _live(found)]


def test_a_blob_that_is_read_late_lives_long_and_an_output_to_the_end() -> None:
    net = checked(
        [
            ("Sigmoid", ["x"], ["a"], {}),
            ("Sigmoid", ["a"], ["b"], {}),
            ("Sigmoid", ["b"], ["c"], {}),
            ("Sum", ["a", "c"], ["y"], {}),
        ],
        outputs=("y", "b"),
    )
    assert _live(steps(net, (1, 1, 1, 1))) == [2, 2, 3, 4]


def test_what_is_written_over_its_input_takes_nothing() -> None:
    operators = [("Conv", ["x", "w"], ["c"], {"kernel": 1}), ("Relu", ["c"], ["c"], {}), ("Copy", ["c"], ["y"], {})]
    apart = [("Conv", ["x", "w"], ["c"], {"kernel": 1}), ("Relu", ["c"], ["r"], {}), ("Copy", ["r"], ["y"], {})]
    weights = {"w": np.ones((1, 1, 1, 1), np.float32)}
    assert _live(steps(checked(operators, weights), (1, 1, 1, 1), fused=False)) == [2, 1, 2]
    assert _live(steps(checked(apart, weights), (1, 1, 1, 1), fused=False)) == [2, 2, 2]
    for each in (operators, apart):
        found = steps(checked(each, weights), (1, 1, 1, 1))
        assert [step.operator.type for step in found] == ["Conv", "Copy"]
        assert _live(found) == [2, 2]
    assert steps(checked(operators, weights), (1, 1, 1, 1))[0].blob == "c"


def _measured(run: Callable[[], Any]) -> int:
    """The most bytes that PyTorch's CPU allocator had given out at a time during `run`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    found = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(found, key=lambda event: event.start_ns())]
    assert sum(sizes) == 0  # nothing is left behind
    return int(np.cumsum(sizes).max())


@pytest.mark.long
@pytest.mark.skipif(torch.__version__.startswith("1."), reason="this torch tells less of its memory")
def test_the_cmu_net_takes_no_more_than_lifetimes_say(random_net: Callable[[str], Path]) -> None:
    """Within 5 % of live inputs and output of the widest operator, measured, from frames."""
    cmu_net, size = random_net("cmu_coco"), (184, 144)
    bound = max(step.live for step in steps(optimise(read_pair(read_manifest(cmu_net))), (1, 3, *size)))
    assert bound == 2 * 64 * size[0] * size[1] * 4  # what conv1_2 reads and makes
    net = load(cmu_net)
    frames = np.zeros((1, *size, 3), np.uint8)
    net(frames)
    assert bound <= _measured(lambda: net(frames)) <= 1.05 * bound


def test_maps_may_come_from_two_blobs_of_which_one_was_written_over(tmp_path: Path) -> None:
    operators = [
        ("Conv", ["x", "w", "b"], ["c"], {"kernel": 8, "stride": 8}),
        ("Relu", ["c"], ["c"], {}),
        ("Copy", ["c"], ["d"], {}),
        ("Conv", ["d", "p"], ["e"], {"kernel": 1}),
        ("Relu", ["e"], ["y"], {}),
    ]
    parameters = {**pose_parameters(), "p": np.eye(57, dtype=np.float32)[:, ::-1].reshape(57, 57, 1, 1).copy()}
    directory = write_pose_net(tmp_path / "net", operators, parameters)
    manifest = read_manifest(directory)
    batch = np.random.default_rng(0).standard_normal((2, 3, 16, 24)).astype(np.float32)
    made = np.concatenate(load(directory).run(batch), 1)  # y
    specs = OutputSpec(blob="c", start=0, stop=19), OutputSpec(blob="e", start=19, stop=57)
    asked = manifest.model_copy(update=dict(zip(("heatmaps", "pafs"), specs)))
    (directory / "model.json").write_text(asked.to_json())
    heatmaps, pafs = load(directory).run(batch)
    assert heatmaps.min() == 0  # c is what the Relu wrote over it, and e is c with its channels in reverse order
    np.testing.assert_allclose(heatmaps, made[:, ::-1][:, :19], rtol=1e-6)
    np.testing.assert_allclose(pafs, made[:, 19:], rtol=1e-6)
