"""Measured tables in documents: each stands between marks of its own, and is replaced whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Sequence


def put(document: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between the marks called `name` in `document`.

    Raises:
        ValueError: the document has no such marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = document.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{document} has no marks {begin} and {end}")
    document.write_text("\n".join([f"{before}{begin}", *lines, f"{end}{after}"]), encoding="utf-8")


def figures(measured: Dict[str, Optional[Any]]) -> str:
    """The cells of COCO's figures; a dash where there is nobody that one is about."""
    return " | ".join("–" if value is None else f"{value:.3f}" for value in measured.values())
