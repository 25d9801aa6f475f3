"""Which files a folder, a glob or a name stands for, and the names of what is written of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.client.find import Found, find_images


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
