"""The whole worker on Caffe2: photographs through the queue give the people that the default engine finds."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest

from tests.support.documents import command, example
from worker.children import stop_child
from worker.client import PoseClient
from worker.contract import Result

pytestmark = [pytest.mark.queue, pytest.mark.timeout(400)]

PHOTOGRAPHS = ("bus.jpg", "zidane.jpg")
#: Longest wait for a result, in seconds: on a fresh checkout the decoder's loops are compiled before the first.
PATIENCE_S = 300


@pytest.fixture(scope="module")
def results(broker: str, samples: Path, start_worker: Callable[..., subprocess.Popen]) -> Dict[str, Dict[str, Result]]:
    """Engine → photograph → what a worker on that engine answered; one worker at a time, from the same queue."""
    found: Dict[str, Dict[str, Result]] = {}
    told, words = command(example("docs/models.md", "sh", "POSE_ENGINE=caffe2"))
    assert words[1:] == ["-m", "worker", "fleet"]
    for engine in (told["POSE_ENGINE"], "torch"):
        worker = start_worker("cpu0", POSE_BROKER_URL=broker, POSE_IMAGE_ROOTS=samples, POSE_ENGINE=engine)
        with PoseClient(broker) as client:
            jobs = {name: client.submit(samples / name) for name in PHOTOGRAPHS}
            found[engine] = {name: job.result(PATIENCE_S) for name, job in jobs.items()}
            assert all(job.overlay() for job in jobs.values())
        assert stop_child(worker, grace_s=20) == 0
    return found


def _people(result: Result) -> np.ndarray:
    """Keypoints (n, 18, 3) in the order of the first one's place; NaN where there is none."""
    found: Any = [[point or (np.nan,) * 3 for point in person.keypoints] for person in result.people]
    people = np.array(found, float).reshape(-1, 18, 3)
    return people[np.argsort(np.nanmean(people[:, :, 0], 1))]


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_both_engines_find_the_same_people(photograph: str, results: Dict[str, Dict[str, Result]]) -> None:
    caffe2, ours = (_people(results[engine][photograph]) for engine in ("caffe2", "torch"))
    assert len(caffe2) >= 2
    assert caffe2.shape == ours.shape
    np.testing.assert_array_equal(np.isnan(caffe2), np.isnan(ours))
    np.testing.assert_allclose(caffe2[..., :2], ours[..., :2], atol=0.1)  # pixels
    np.testing.assert_allclose(caffe2[..., 2], ours[..., 2], atol=1e-3)
