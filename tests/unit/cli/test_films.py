"""Films on the command line: what is one, what is sent and written, how far they are. The worker is the test's."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple

import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Ran

from tests.support.film_results import described, lines, video_result
from tests.support.film_workers import FILM, Workers
from worker.cli.batch import Batch
from worker.cli.film_files import FilmFiles
from worker.cli.paths import is_film, searched
from worker.cli.progress import FilmProgress, in_words
from worker.cli.submit import submit
from worker.cli.writers import Done
from worker.client import PoseClient, Progress
from worker.client.find import Found
from worker.client.handle import VideoHandle
from worker.errors import JobFailed, VideoUndecodable
from worker.settings import settings


@pytest.mark.parametrize(
    ("path", "film"),
    [
        ("a.mp4", True),
        ("in/A.MOV", True),
        ("a.ts", True),
        ("https://example.org/a.webm?signature=a.jpg", True),
        ("s3://bucket/a.mkv", True),
        ("a.jpg", False),
        ("a.gif", False),
        ("mp4", False),
        ("https://example.org/a.jpg?of=a.mp4", False),
    ],
)
def test_what_is_a_film(path: str, film: bool) -> None:
    assert is_film(path) is film


def test_folders_are_searched_for_films_but_not_for_programs() -> None:
    assert {"jpg", "gif", "mp4", "avi"} <= set(searched(False))
    assert {"mp4", "gif", "webp"} <= set(searched(True))
    assert {"jpg", "png"} & set(searched(True)) == set()
    assert "ts" not in searched(False)


@pytest.fixture
def workers(broker: str) -> Iterator[Workers]:
    with Workers(broker) as workers:
        yield workers


@pytest.fixture
def run(broker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ran]:
    """Runs ``submit``, which writes to ``out``."""
    monkeypatch.setenv("POSE_BROKER_URL", broker)
    settings.cache_clear()

    def run(*words: Any) -> Ran:
        return CliRunner().invoke(submit, ["--out", str(tmp_path / "out"), "--timeout", "20", *map(str, words)])

    return run


def _written(folder: Path) -> List[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.queue
def test_a_film_and_what_is_written_of_it(run: Callable[..., Ran], workers: Workers, tmp_path: Path) -> None:
    ran = run("/data/street.mp4", "--every", 2, "--start", 1, "--end", 9.5, "--max-frames", 7, "--no-track")
    assert ran.exit_code == 0, ran.output
    assert "1 films of 30 frames, 2 people, 0 failed" in ran.output
    assert workers.asked == [
        (
            "pose.video",
            {
                "video": "/data/street.mp4",
                "options": {
                    "every": 2,
                    "start_s": 1.0,
                    "end_s": 9.5,
                    "max_frames": 7,
                    "track": False,
                    "overlay": True,
                },
            },
        )
    ]
    out = tmp_path / "out"
    assert _written(out) == ["street_keypoints.jsonl.gz", "street_rendered.mp4"]
    assert (out / "street_rendered.mp4").read_bytes() == FILM
    with gzip.open(out / "street_keypoints.jsonl.gz") as file:
        assert [json.loads(line) for line in file] == lines(30)


@pytest.mark.queue
def test_films_and_images_of_a_folder_and_a_failure(run: Callable[..., Ran], workers: Workers, tmp_path: Path) -> None:
    for name in ("a.jpg", "film.mp4", "sub/film.webm", "broken.avi", "program.ts", "notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    workers.outcomes["broken.avi"] = VideoUndecodable("broken.avi has no video in it.")
    ran = run(tmp_path / "in", "--no-overlay", "--report", tmp_path / "report.html")
    assert ran.exit_code == 1
    assert "1 images, 2 films of 60 frames, 5 people, 1 failed" in ran.output
    assert "VideoUndecodable" in ran.output
    assert _written(tmp_path / "out") == [
        "a_keypoints.json",
        "film_keypoints.jsonl.gz",
        "sub/film_keypoints.jsonl.gz",
    ]
    assert sorted(task for task, _ in workers.asked) == ["pose.estimate"] + ["pose.video"] * 3
    assert (tmp_path / "report.html").read_text().count('<article class="film"') == 2


@pytest.mark.queue
def test_whatever_is_said_to_be_a_film_is_one(run: Callable[..., Ran], workers: Workers) -> None:
    assert run("/data/a.gif", "/data/b", "--video", "--smooth", 1).exit_code == 0
    assert [(task, asked["options"]["smooth"]) for task, asked in workers.asked] == [("pose.video", 1.0)] * 2


@pytest.mark.queue
def test_images_in_order_do_not_wait_for_films(run: Callable[..., Ran], workers: Workers, tmp_path: Path) -> None:
    assert run("/d/a.jpg", "/d/b.mp4", "/d/c.jpg", "--track").exit_code == 0
    assert len(_written(tmp_path / "out")) == 4
    ids = [json.loads((tmp_path / "out" / f"{n}_keypoints.json").read_text())["people"][0]["person_id"] for n in "ac"]
    assert ids == [[0], [0]]


@pytest.mark.queue
def test_the_forms_of_a_films_keypoints(run: Callable[..., Ran], workers: Workers, tmp_path: Path) -> None:
    words = [word for form in ("openpose", "coco", "csv", "numpy") for word in ("--format", form)]
    assert run("/data/street.mp4", *words).exit_code == 0
    out = tmp_path / "out"
    with zipfile.ZipFile(out / "street_openpose.zip") as archive:
        assert len(archive.namelist()) == 30
        first = json.loads(archive.read("street_000000000000_keypoints.json"))
    assert [person["person_id"] for person in first["people"]] == [[3], [7]]
    entries = json.loads((out / "street_coco.json").read_text())
    assert [(entry["image_id"], entry["track_id"]) for entry in entries[:3]] == [(0, 3), (0, 7), (1, 3)]
    rows = list(csv.DictReader(io.StringIO((out / "street_people.csv").read_text())))
    assert [(row["frame"], row["time_s"], row["id"], row["nose_x"]) for row in rows[:3]] == [
        ("0", "0.0", "3", "40.0"),
        ("0", "0.0", "7", "240.0"),
        ("1", "0.04", "3", "41.0"),
    ]
    with np.load(out / "street_keypoints.npz") as arrays:
        assert arrays["keypoints"].shape == (50, 18, 3)
        assert arrays["id"].tolist().count(7) == 20
        assert arrays["frame"].tolist() == list(range(30))


@pytest.mark.queue
def test_tables_of_images_have_no_films(run: Callable[..., Ran], workers: Workers, tmp_path: Path) -> None:
    ran = run("/data/street1.mp4", "--coco", tmp_path / "all.json")
    assert ran.exit_code == 1
    assert "take --format coco for films" in ran.output
    assert json.loads((tmp_path / "all.json").read_text()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.mp4", "--every", "0"], "every"),
        (["a.mp4", "--start", "3", "--end", "2"], "must be before end_s"),
        (["a.mp4", "--maps"], "of images, not of films"),
        (["a.mp4", "a.jpg", "--smooth", "1"], "say --track, too"),
        (["a.mp4", "--smooth", "1", "--no-track"], "say --track, too"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_started(words: List[str], said: str) -> None:
    refused = CliRunner().invoke(submit, words)
    assert refused.exit_code != 0
    assert said in f"{refused.output} {refused.exception}"


def test_a_films_progress_in_words() -> None:
    assert in_words("a.mp4", Progress(phase="plan")) == "a.mp4: plan"
    busy = Progress(phase="look", done=3, segments=20, frames=900, frames_per_s=251.3, eta_s=3725)
    assert in_words("a\n.mp4", busy) == "a\\n.mp4: look, 3/20 segments, 251 frames/s, 1:02:05 left"
    assert in_words("a", Progress(phase="draw", done=1, segments=2, eta_s=5)) == "a: draw, 1/2 segments, 0:05 left"


class SlowClient(PoseClient):
    """Stands for a client whose film gets further with each look, and ends after the last of them."""

    def __init__(self, looks: int, stuck: bool = False) -> None:
        self._looks, self._stuck, self.done = looks, stuck, 0

    def submit_video(self, path: Any, **_: Any) -> VideoHandle:
        return VideoHandle(self, "film", path)

    def progress(self, job_id: str) -> Progress:
        self.done += not self._stuck
        return Progress(phase="look", done=self.done, segments=self._looks)

    def ended(self, ids: Any) -> Iterator[Tuple[str, Any]]:
        if self.done >= self._looks and list(ids):
            yield "film", JobFailed("It has ended.")

    def discard(self, job_id: str, result: Optional[Any] = None) -> None:
        return None


@pytest.mark.parametrize("stuck", [False, True])
def test_a_film_that_gets_further_is_waited_for(monkeypatch: pytest.MonkeyPatch, stuck: bool) -> None:
    monkeypatch.setattr("worker.cli.progress._PAUSE_S", 0.05)
    said: List[str] = []
    batch = Batch(SlowClient(20, stuck), [], {}, idle_timeout_s=0.4, tell=said.append)
    summary = batch.run(iter([Found("a.mp4", "a")]), lambda _: None)
    assert [kind for _, kind, _ in summary.failures] == ["TimeoutError" if stuck else "JobFailed"]
    assert said[0] == f"a: look, {0 if stuck else 1}/20 segments"


def test_progress_of_nothing_is_not_looked_for() -> None:
    assert not FilmProgress(SlowClient(1), pytest.fail).look()


@pytest.mark.parametrize("form", ["openpose", "coco", "csv", "numpy"])
def test_keypoints_that_are_none_are_a_films_failure(tmp_path: Path, form: str) -> None:
    data = gzip.compress(b'{"frame": 0, "time_s": 0, "people": [{"id": 1, "score": 1, "keypoints": [[1, 2, 3]]}]}\n')
    result = video_result("j", described(data, "application/gzip"), [])
    with pytest.raises(JobFailed, match=f"cannot be written as {form}"):
        FilmFiles(tmp_path, [form]).add(Done("a.mp4", "a", result, keypoints=data))
    assert _written(tmp_path) == ["a_keypoints.jsonl.gz"]
