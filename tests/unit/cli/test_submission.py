"""Which files a submission finds, and the names of what it writes."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Iterable, Iterator, Tuple, cast

import pytest

from worker.cli.outputs import Files
from worker.cli.submission import Batch, Tally, failure_table
from worker.client import IN_FLIGHT, PoseClient
from worker.client.find import Found, find_images
from worker.client.job import JobHandle
from worker.contract import Image, Model, Person, Result
from worker.errors import ImageUndecodable


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.jpg", "a.png", "b.JPEG", "notes.txt", "sub/a.jpg", "[1].jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_directory_is_searched_with_its_subfolders_for_the_extensions(tree: Path) -> None:
    found = list(find_images([str(tree)], ["jpg", ".JPEG"]))
    assert [(Path(f.path).relative_to(tree).as_posix(), f.name) for f in found] == [
        ("[1].jpg", "[1]"),
        ("a.jpg", "a"),
        ("b.JPEG", "b"),
        ("sub/a.jpg", "sub/a"),
    ]


def test_names_that_would_meet_are_kept_apart(tree: Path) -> None:
    found = list(find_images(["a.jpg", "a.png", "sub/a.jpg", "a.png"], ["jpg"]))
    assert [f.name for f in found] == ["a", "a.png", "a.jpg", "a.png-2"]


def test_a_glob_is_expanded_but_a_file_that_looks_like_one_is_a_file(tree: Path) -> None:
    assert [f.path for f in find_images(["[1].jpg"], [])] == ["[1].jpg"]
    assert sorted(f.path for f in find_images(["**/a.*"], [])) == ["a.jpg", "a.png", "sub/a.jpg"]


@pytest.mark.parametrize("pattern", ["nowhere.jpg", "*.webp", "sub/empty"])
def test_a_pattern_that_names_nothing_is_not_passed_over(tree: Path, pattern: str) -> None:
    (tree / "sub" / "empty").mkdir()
    assert [f.path for f in find_images([pattern], ["webp"])] == [pattern]


def test_a_million_files_are_not_held_in_memory(tree: Path) -> None:
    images = find_images([str(tree)], ["jpg"])
    assert isinstance(next(images), Found)  # a generator: the rest of the tree has not been looked at


class ForgetfulClient:
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
        return JobHandle(cast(PoseClient, self), str(self.open), path)

    def ended(self, ids: Iterable[str]) -> Iterator[Tuple[str, Result]]:
        return ((job_id, Result.model_validate(self._result)) for job_id in list(ids))

    def discard(self, job_id: str, result: Result) -> None:
        self.open -= 1


def test_a_thousand_images_need_no_more_memory_than_a_hundred(tmp_path: Path) -> None:
    client = ForgetfulClient()
    batch = Batch(cast(PoseClient, client), [Files(tmp_path)], {}, idle_timeout_s=1)

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
    assert batch.tally.done == 1200
    assert len(list(tmp_path.iterdir())) == 1000
    assert (client.open, client.most_open) == (0, IN_FLIGHT)
    assert kept_of_many < kept_of_few + 50_000  # bytes
    assert peak_of_many < peak_of_few * 2


def test_the_table_of_failures_is_aligned() -> None:
    tally = Tally()
    tally.fail("a.jpg", ImageUndecodable("is empty"))
    tally.fail("long/name.jpg", TimeoutError("no answer"))
    tally.fail("\n\x1b.jpg", ImageUndecodable("'\udcff' is empty"))  # which could write over other lines
    assert failure_table(tally).splitlines() == [
        "image          error             why",
        "a.jpg          ImageUndecodable  is empty",
        "long/name.jpg  TimeoutError      no answer",
        "\\n\\x1b.jpg     ImageUndecodable  '\\udcff' is empty",
    ]
