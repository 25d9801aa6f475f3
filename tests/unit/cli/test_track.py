"""Images in order: ids, smoothing, and images that fail or end early among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

import numpy as np
import pytest
from click.testing import CliRunner

from tests.support.synthetic import STANDING
from worker.cli.batch import Batch
from worker.cli.submit import submit
from worker.cli.track import Track
from worker.cli.writers import CocoFile, OpenPoseFiles
from worker.client import PoseClient
from worker.client.find import Found
from worker.client.handle import JobHandle
from worker.client.outcome import Outcome
from worker.contract import Image, Model, Person, Result
from worker.errors import ImageNotFound


def result(*people: Person) -> Result:
    return Result(
        job_id="a",
        image=Image(path="a.jpg", width=900, height=400, format="JPEG", frames=1),
        model=Model(name="net", sha256="0" * 64),
        people=list(people),
        overlay=None,
        warnings=[],
        timings_ms={},
        worker="cpu0@host",
        device="cpu",
        attempt=1,
    )


def standing(x: float) -> Person:
    return Person(score=0.9, keypoints=[(float(a), float(b), 0.9) for a, b in STANDING * 50 + (x, 50)])


class Frames(PoseClient):
    """Stands for a client whose jobs end in `outcomes`, in an order that the `seed` chooses; None: never."""

    def __init__(self, outcomes: List[Optional[Outcome]], seed: int = 0) -> None:
        self._outcomes, self._random, self._count = outcomes, np.random.default_rng(seed), 0
        self.discarded: List[str] = []

    def submit(self, path: str) -> JobHandle:
        self._count += 1
        return JobHandle(self, str(self._count - 1), path)

    def ended(self, ids: Iterable[str]) -> Iterator[Tuple[str, Outcome]]:
        ids = [job_id for job_id in ids if self._outcomes[int(job_id)] is not None]
        for job_id in self._random.permutation(ids)[:3].tolist():
            outcome = self._outcomes[int(job_id)]
            assert outcome is not None
            yield job_id, outcome

    def discard(self, job_id: str, result: Optional[Result]) -> None:
        self.discarded.append(job_id)


def run(folder: Path, outcomes: List[Optional[Outcome]], seed: int = 0, **track: Any) -> Tuple[Batch, Dict[int, Any]]:
    """A batch of the frames, and what was written of each."""
    client = Frames(outcomes, seed)
    writers = [OpenPoseFiles(folder), CocoFile(folder / "all.json")]
    batch = Batch(client, writers, {}, idle_timeout_s=0.2, track=Track(**{"fps": 25.0, **track}))
    batch.run((Found(f"{n}.jpg", str(n)) for n in range(len(outcomes))), lambda _: None)
    assert sorted(client.discarded, key=int) == [str(n) for n, one in enumerate(outcomes) if one is not None]
    written = {int(path.name.split("_")[0]): json.loads(path.read_text()) for path in folder.glob("*_keypoints.json")}
    return batch, {number: document["people"] for number, document in written.items()}


def ids_of(people: List[Dict[str, Any]]) -> List[int]:
    return [person["person_id"][0] for person in people]


@pytest.mark.parametrize("seed", range(3))
def test_who_is_who_does_not_depend_on_the_order_in_which_jobs_end(tmp_path: Path, seed: int) -> None:
    frames: List[Optional[Outcome]] = []
    for n in range(60):
        left, right = standing(100 + 4 * n), standing(700 - 4 * n)  # who cross
        frames.append(result(left, right) if n % 2 else result(right, left))
    _, people = run(tmp_path, frames, seed)
    assert [ids_of(people[n]) for n in range(60)] == [[1, 0] if n % 2 else [0, 1] for n in range(60)]
    entries = json.loads((tmp_path / "all.json").read_text())
    assert [entry["image_id"] for entry in entries] == [n // 2 for n in range(120)]
    assert [entry["track_id"] for entry in entries[:4]] == [0, 1, 1, 0]


def test_time_goes_on_while_images_fail(tmp_path: Path) -> None:
    gone = ImageNotFound("There is no file.")
    frames = [result(standing(100)), *[gone] * 20, result(standing(100)), *[gone] * 30, result(standing(100))]
    batch, people = run(tmp_path, frames)
    assert [ids_of(people[n]) for n in sorted(people)] == [[0], [0], [1]]  # after 0.8 s, and after 1.2 s
    assert len(batch.summary.failures) == 50


def test_what_has_ended_is_written_though_one_before_it_never_ends(tmp_path: Path) -> None:
    batch, people = run(tmp_path, [result(standing(100)), None, result(standing(104)), None])
    assert {number: ids_of(one) for number, one in people.items()} == {0: [0], 2: [0]}
    assert [failure[:2] for failure in batch.summary.failures] == [("1.jpg", "TimeoutError"), ("3.jpg", "TimeoutError")]


def test_smoothing(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    frames: List[Optional[Outcome]] = [result(standing(100 + random.normal() * 3)) for _ in range(60)]
    spread = []
    for name, cutoff in (("found", None), ("smooth", 0.5)):
        folder = tmp_path / name
        folder.mkdir()
        _, people = run(folder, frames, cutoff=cutoff)
        spread.append(np.std([people[n][0]["pose_keypoints_2d"][0] for n in range(20, 60)]))
    assert spread[1] < 0.5 * spread[0]


def test_smoothing_needs_to_know_who_is_who() -> None:
    refused = CliRunner().invoke(submit, ["a.jpg", "--smooth", "1"])
    assert refused.exit_code == 2
    assert "say --track, too" in refused.output
