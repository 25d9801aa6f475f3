"""Image files by path, folder and glob."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from typing import Iterator, Sequence, Set, Tuple

#: What folders are searched for.
EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "avif", "heic", "heif", "jxl")


@dataclass(frozen=True)
class Found:
    """An image to submit, and the path below the output folder that its files' names begin with."""

    path: str
    name: str


def find_images(patterns: Sequence[str], extensions: Sequence[str]) -> Iterator[Found]:
    """Yield what the `patterns` name: files as they are, directories searched for `extensions`, globs expanded.

    A pattern that names nothing is yielded as it is, so that it ends as one failed job and not in silence.
    Of two images that would write the same files, the later one keeps its extension or gets a number.
    """
    taken: Set[str] = set()
    for path, base in _expand(patterns, tuple(f".{e.lower().lstrip('.')}" for e in extensions)):
        relative = os.path.relpath(path, base) if base else os.path.basename(path)  # noqa: PTH119
        yield Found(path, _free_name(relative, taken))


def _expand(patterns: Sequence[str], suffixes: Tuple[str, ...]) -> Iterator[Tuple[str, str]]:
    """Pairs of an image path and the folder that its output name is relative to ("" for the name alone)."""
    for pattern in patterns:
        if os.path.isdir(pattern):  # noqa: PTH112
            matches, base = _walk(pattern, suffixes), pattern
        elif is_glob(pattern):
            matches, base = filter(os.path.isfile, glob.iglob(pattern, recursive=True)), ""  # noqa: PTH207
        else:
            matches, base = iter([pattern]), ""
        first = next(matches, None)
        if first is None:
            yield pattern, ""
            continue
        yield first, base
        for path in matches:
            yield path, base


def is_glob(pattern: str) -> bool:
    """Whether `pattern` is a glob, and not a file whose name happens to look like one."""
    return glob.has_magic(pattern) and not os.path.lexists(pattern)


def _walk(folder: str, suffixes: Tuple[str, ...]) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(suffixes):
                yield os.path.join(root, name)  # noqa: PTH118


def _free_name(relative: str, taken: Set[str]) -> str:
    stem = os.path.splitext(relative)[0]  # noqa: PTH122
    name, number = (stem if stem not in taken else relative), 2
    while name in taken:
        name, number = f"{relative}-{number}", number + 1
    taken.add(name)
    return name
