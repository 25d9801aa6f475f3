"""A batch: how much of it is in memory at a time, what becomes of silence, and its table of failures."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path
from typing import Iterable, Iterator, List, Tuple

import pytest

from worker.cli.batch import Batch, BatchSummary, failure_table
from worker.cli.writers import CocoFile, OpenPoseFiles
from worker.client import IN_FLIGHT, PoseClient
from worker.client.find import Found
from worker.client.handle import JobHandle
from worker.contract import Image, Model, Person, Result
from worker.errors import DeviceLost


class ForgetfulClient(PoseClient):
    """Stands for a client whose every job has ended at once, in a result with five people."""

    def __init__(self) -> None:
        self.open = self.most_open = 0
        person = Person(score=1.0, keypoints=[(1.0, 2.0, 0.5)] * 18)
        self._result = Result(
            job_id="a",
            image=Image(path="a.jpg", width=9, height=9, format="JPEG", frames=1),
            model=Model(name="net", sha256="0" * 64),
            people=[person] * 5,
            overlay=None,
            warnings=[],
            timings_ms={},
            worker="cpu0@host",
            device="cpu",
            attempt=1,
        ).to_message()

    def submit(self, path: str) -> JobHandle:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return JobHandle(self, str(self.open), path)

    def ended(self, ids: Iterable[str]) -> Iterator[Tuple[str, Result]]:
        return ((job_id, Result.model_validate(self._result)) for job_id in list(ids))

    def discard(self, job_id: str, result: Result) -> None:
        self.open -= 1


def test_a_thousand_images_need_no_more_memory_than_a_hundred(tmp_path: Path) -> None:
    client = ForgetfulClient()
    batch = Batch(client, [OpenPoseFiles(tmp_path)], {}, idle_timeout_s=1)

    def run(count: int) -> Tuple[int, int]:
        tracemalloc.reset_peak()
        batch.run((Found(f"{n}.jpg", str(n)) for n in range(count)), lambda _: None)
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        return tracemalloc.get_traced_memory()[0], peak

    tracemalloc.start()
    try:
        run(100)
        (kept_of_few, peak_of_few), (kept_of_many, peak_of_many) = run(100), run(1000)
    finally:
        tracemalloc.stop()
    assert batch.summary.done == 1200
    assert len(list(tmp_path.iterdir())) == 1000
    assert (client.open, client.most_open) == (0, IN_FLIGHT)
    assert kept_of_many < kept_of_few + 50_000  # bytes
    assert peak_of_many < peak_of_few * 2


class SilentClient(ForgetfulClient):
    """Stands for a client whose jobs never end."""

    def ended(self, ids: Iterable[str]) -> Iterator[Tuple[str, Result]]:
        return iter(())


def test_images_without_an_answer_have_failed_and_the_others_are_still_sent(tmp_path: Path) -> None:
    client = SilentClient()
    batch = Batch(client, [OpenPoseFiles(tmp_path)], {}, idle_timeout_s=0.05)
    count = IN_FLIGHT + 1
    seen: List[int] = []
    summary = batch.run((Found(f"{n}.jpg", str(n)) for n in range(count)), lambda so_far: seen.append(so_far.done))
    assert client.open == len(seen) == len(summary.failures) == count
    path, error, sentence = summary.failures[-1]
    assert (path, error) == (f"{count - 1}.jpg", "TimeoutError")
    assert sentence == f"No answer for '{path}' within 0.05 s; is a worker running? (job {count})"


def test_a_check_that_fails_ends_the_batch(tmp_path: Path) -> None:
    def dead() -> None:
        raise DeviceLost("The local worker ended.")

    results = tmp_path / "results.json"
    batch = Batch(SilentClient(), [CocoFile(results)], {}, idle_timeout_s=60, check=dead)
    with pytest.raises(DeviceLost):
        batch.run(iter([Found("a.jpg", "a")]), lambda _: None)
    assert json.loads(results.read_text()) == []  # what there is, is written


def test_the_table_of_failures_is_aligned() -> None:
    summary = BatchSummary()
    summary.failures.append(("a.jpg", "ImageUndecodable", "is empty"))
    summary.failures.append(("long/name.jpg", "TimeoutError", "no answer"))
    summary.failures.append(
        ("\n\x1b.jpg", "ImageUndecodable", "'\udcff' is empty")
    )  # which could write over other lines
    assert failure_table(summary).splitlines() == [
        "image          error             why",
        "a.jpg          ImageUndecodable  is empty",
        "long/name.jpg  TimeoutError      no answer",
        "\\n\\x1b.jpg     ImageUndecodable  '\\udcff' is empty",
    ]
