"""A page to look at: every overlay of a batch in one HTML file, which needs no server and asks nobody for anything.

Films are played from the files beside it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
import shutil
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from string import Template
from typing import Any, Dict, List, Optional, Tuple

from worker.cli.film_card import film_card
from worker.cli.paths import is_film
from worker.cli.writers import DRAWN, Done
from worker.contract import Result
from worker.errors import ImageUndecodable
from worker.files import printable, replacing
from worker.people import to_skeleton
from worker.pose.skeleton import Skeleton
from worker.video_contract import VideoResult

_PAGE = Path(__file__).with_suffix(".html")
_SCRIPT = Path(__file__).with_suffix(".js")
_FILM_SCRIPT = Path(__file__).with_name("film_card.js")
_CARDS = "<!-- cards -->"
#: Longest side of a picture on the page, in pixels, and its JPEG quality.
_SIDE, _QUALITY = 1280, 82
#: Filters by number of people; the last one takes all above it.
_COUNTS = ("0", "1", "2", "3", "4", "5")


class Report:
    """Written as the batch goes on: however many images there are, one at a time is held in memory.

    Args:
        path: the HTML file; it appears when the report is closed.
        title: what it is called.
        films: the folder in which drawn films lie, see :class:`worker.cli.film_files.FilmFiles`.
    """

    def __init__(self, path: Path, title: str = "Pose report", films: Optional[Path] = None) -> None:
        self._path, self._title, self._folder = path, title, films
        self._films = 0
        self._cards = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        self._begun = math.inf  # when the first job began, as far as is known
        self._counts: Counter[str] = Counter()
        self._ms: List[float] = []

    def add(self, done: Done) -> None:
        """Take one image or film, whatever became of it."""
        if isinstance(done.outcome, VideoResult):
            self._cards.write(self._film(done, done.outcome).encode())
            self._films += 1
            people = len(done.outcome.tracks) or done.outcome.most_people
            self._counts[str(min(people, int(_COUNTS[-1])))] += 1
            return
        total_ms = done.outcome.timings_ms.get("total", 0.0) if isinstance(done.outcome, Result) else 0.0
        self._begun = min(self._begun, time.monotonic() - total_ms / 1000)
        if isinstance(done.outcome, Result):
            card = _card(done, done.outcome).encode()
            self._counts[str(min(len(done.outcome.people), int(_COUNTS[-1])))] += 1
            self._ms.append(total_ms)
            self._cards.write(card)
        else:
            self._films += is_film(done.path)
            self._counts["failed"] += 1
            self._cards.write(_failure(done.name, done.path, done.outcome).encode())

    def close(self) -> None:
        """Write the page."""
        script = _SCRIPT.read_text(encoding="utf-8")
        if self._films:
            script += _FILM_SCRIPT.read_text(encoding="utf-8")
        page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
            title=_text(self._title),
            sums=self._sums(),
            filters=self._filters(),
            script=script,
            media="media-src 'self' file:; " if self._films else "",
            script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        )
        head, tail = page.split(_CARDS)
        with self._cards, replacing(self._path) as file:
            self._cards.seek(0)
            file.write(head.encode())
            shutil.copyfileobj(self._cards, file)
            file.write(tail.encode())

    def _sums(self) -> str:
        images, seconds = sum(self._counts.values()) - self._films, time.monotonic() - self._begun
        sums = [("films", f"{self._films}")] if self._films else []
        sums += [("images", f"{images}")] if images or not self._films else []
        sums += [("failed", f"{self._counts['failed']}")]
        if self._ms:
            slow = sorted(self._ms)[math.ceil(0.95 * len(self._ms)) - 1]
            sums += [("median time", f"{statistics.median(self._ms):.0f} ms"), ("95 % within", f"{slow:.0f} ms")]
        if not self._films:  # which take their own time
            sums += [("images per second", f"{images / max(seconds, 1e-3):.1f}")]
        return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in sums)

    def _film(self, done: Done, result: VideoResult) -> str:
        """A film's card; without a drawn film it plays the film itself, if that lies here."""
        drawn = done.picture is not None and self._folder is not None
        film = self._folder / f"{done.name}{DRAWN}" if drawn and self._folder else Path(done.path)
        there = film if drawn or film.is_file() else None
        return film_card(done.name, result, done.keypoints or b"", there, self._path, drawn=drawn)

    def _filters(self) -> str:
        kinds = [("all", "All", sum(self._counts.values()))]
        for count in _COUNTS:
            word = "Nobody" if count == "0" else f"{count}+ people" if count == "5" else _people(int(count))
            kinds.append((count, word, self._counts[count]))
        kinds.append(("failed", "Failures", self._counts["failed"]))
        return "".join(
            f'<button type="button" value="{value}">{word}<small>{number}</small></button>'
            for value, word, number in kinds
            if number or value == "all"
        )


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _card(done: Done, result: Result) -> str:
    width, height = result.image.width, result.image.height
    name = _text(done.name)
    picture = _picture(done.picture) if done.picture else ""
    image = f'<img src="{picture}" alt="{name}, with {_people(len(result.people))}" loading="lazy">' if picture else ""
    total = result.timings_ms.get("total", 0.0)
    warnings = "".join(f'<p class="warning">{_text(warning)}</p>' for warning in result.warnings)
    return (
        f'<article data-name="{name}" data-people="{len(result.people)}" data-ms="{total:.3f}">'
        f'<figure tabindex="0" role="button" aria-expanded="false" aria-label="Enlarge {name}" '
        f'style="--shape: {width} / {height}">{image}'
        f"{_drawing(result, bare=not picture)}</figure>"
        f'<div class="text"><h2 title="{_text(result.image.path)}">{name}</h2>'
        f'<p class="facts">{_people(len(result.people))} · {width}×{height} · {total:.0f} ms · '
        f"{_text(result.model.name)} on {_text(result.device)}</p>{warnings}{_timings(result.timings_ms)}"
        "</div></article>\n"
    )


def _failure(name: str, path: str, error: Exception) -> str:
    name = _text(name)
    return (
        f'<article class="failed" data-name="{name}"><div class="text"><h2>{name}</h2>'
        f'<p class="facts">{_text(path)}</p>'
        f"<p><strong>{type(error).__name__}</strong> {_text(str(error))}</p></div></article>\n"
    )


def _text(text: str) -> str:
    return html.escape(printable(text))


def _timings(timings_ms: Dict[str, float]) -> str:
    stages = [(stage, ms) for stage, ms in timings_ms.items() if stage != "total"]
    longest = max([ms for _, ms in stages] + [1e-9])
    rows = "".join(
        f'<tr><td>{_text(stage)}</td><td><i style="width:{100 * ms / longest:.1f}%"></i></td><td>{ms:.1f} ms</td></tr>'
        for stage, ms in stages
    )
    return f"<details><summary>Timings</summary><table>{rows}</table></details>"


def _drawing(result: Result, *, bare: bool) -> str:
    """The keypoints as an SVG that lies upon the picture, or stands alone, with limbs."""
    width, height = result.image.width, result.image.height
    radius = max(1.0, 0.008 * (width + height))
    kind = ' class="bare"' if bare else ""
    skeleton = to_skeleton(result)
    people = "".join(
        f"<g>{_limbs(skeleton, person.keypoints) if bare else ''}"
        f"{_joints(skeleton, number, person.keypoints, radius)}</g>"
        for number, person in enumerate(result.people, 1)
    )
    return f'<svg{kind} viewBox="0 0 {width} {height}" aria-hidden="true">{people}</svg>'


def _limbs(skeleton: Skeleton, keypoints: Tuple[Any, ...]) -> str:
    lines = []
    for ends in skeleton.drawn:
        start, end = (keypoints[joint] for joint in ends)
        if start and end:
            lines.append(f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"/>')
    return "".join(lines)


def _joints(skeleton: Skeleton, number: int, keypoints: Tuple[Any, ...], radius: float) -> str:
    circles = []
    for name, joint in zip(skeleton.keypoints, keypoints):
        if joint:
            x, y, confidence = joint
            text = f"person {number} · {name.replace('_', ' ')} · {x:.0f}, {y:.0f} · {confidence:.2f}"
            circles.append(f'<circle cx="{x + 0.5}" cy="{y + 0.5}" r="{radius:.1f}" data-text="{text}"/>')
    return "".join(circles)


def _picture(data: bytes) -> str:
    """An overlay as a data: URL, no larger than the page needs; raises ImageUndecodable."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            kind = "PNG" if picture.format == "PNG" else "JPEG"
            if max(picture.size) > _SIDE or kind == "JPEG":
                picture.thumbnail((_SIDE, _SIDE))
                small = io.BytesIO()
                picture.save(small, kind, **({"quality": _QUALITY} if kind == "JPEG" else {}))
                data = min(small.getvalue(), data, key=len)
    except Exception as exc:  # a damaged picture fails in as many ways as Pillow has decoders
        raise ImageUndecodable(f"The overlay is not a picture that a page can show ({exc}); see the worker.") from exc
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"
