"""What of the paths that a command is given are films. Loads nothing: a command asks before its worker starts."""

from __future__ import annotations

from typing import Tuple

from worker.contract import without_query

#: What is a film by its name.
FILMS = ("mp4", "mov", "mkv", "webm", "avi", "m4v", "mpg", "mpeg", "ts", "wmv", "flv", "ogv")
#: Of these, what folders are not searched for: more files of that name are TypeScript.
_NOT_SEARCHED = ("ts",)
#: Images that are films if somebody says so.
_ANIMATED = ("gif", "webp")


def is_film(path: str) -> bool:
    """Whether a path or URL names a film."""
    return without_query(path).lower().endswith(tuple(f".{extension}" for extension in FILMS))


def searched(video: bool) -> Tuple[str, ...]:
    """The extensions that folders are searched for: images' and films', or films' alone."""
    films = tuple(extension for extension in FILMS if extension not in _NOT_SEARCHED)
    if video:
        return (*films, *_ANIMATED)
    from worker.client.find import EXTENSIONS

    return (*EXTENSIONS, *films)
