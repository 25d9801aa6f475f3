"""A film on the page: what it plays, what the pointer finds, where the timeline leads, and that it stays small."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import pytest

from tests.support import wait_until
from tests.support.browser import Page, browser
from tests.support.film_results import FPS, HEIGHT, WIDTH, described, kept, lines, video_result
from worker.cli.film_card import film_card
from worker.cli.report import Report
from worker.cli.writers import Done
from worker.errors import JobFailed
from worker.video.encode import encode

#: Frames 50 to 199: the film that is played begins two seconds after the one that was sent.
FOUND = lines(150, first=50)
#: Whether anything is drawn upon the first film.
INK = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 4000, 4000).data].some(v => v)"
HOSTILE = '"><script>document.title="broken in"</script>%2F#?.mp4'


def _film() -> bytes:
    grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    return encode(((grey, line["time_s"]) for line in FOUND), FOUND[0]["time_s"], 50)


def _done(name: str, picture: Optional[bytes], found: List[Dict[str, Any]] = FOUND, **more: Any) -> Done:
    data = kept(found)
    overlay = described(picture, "video/mp4") if picture is not None else None
    result = video_result("j", described(data, "application/gzip"), found, overlay, **more)
    return Done(f"/nowhere/{name}", name, result, picture, keypoints=data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of films: one drawn, one whose file is gone, one that was not drawn and is not here."""
    folder = tmp_path_factory.mktemp("report")
    films = folder / "the out"
    films.mkdir()
    film = _film()
    (films / "film_rendered.mp4").write_bytes(film)
    report = Report(folder / "report.html", films=films)
    report.add(_done("film", film))
    report.add(_done(HOSTILE, film))
    report.add(_done("bare", None, warnings=["<b>odd</b>"]))
    report.close()
    return folder / "report.html"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture
def shown(window: Page, page: Path) -> Page:
    """The report as it is when it has just been opened."""
    window.open("about:blank")
    window.requests.clear()
    window.errors.clear()
    window.open(page.as_uri())
    wait_until(lambda: window.evaluate("document.querySelector('article video').readyState >= 2"))
    return window


def test_it_plays_the_drawn_film_and_asks_for_nothing_else(shown: Page, page: Path) -> None:
    assert shown.evaluate("document.querySelector('video').duration") == pytest.approx(len(FOUND) / FPS, abs=0.1)
    asked = {url for url in shown.requests if not url.startswith("data:image/")}
    assert page.as_uri() in asked
    assert all(url.startswith(page.parent.as_uri()) for url in asked)
    assert shown.evaluate("document.title") == "Pose report"
    assert shown.evaluate("document.querySelectorAll('main script:not([type])').length") == 0
    assert not [error for error in shown.errors if "ERR_FILE_NOT_FOUND" not in error]


def test_the_timeline_leads_there(shown: Page) -> None:
    assert shown.evaluate(
        "[...document.querySelector('.timeline').querySelectorAll('span')].map(s => s.textContent)"
    ) == [
        "3",
        "7",
    ]
    assert shown.evaluate("document.querySelector('.row:nth-child(2)').querySelectorAll('i').length") == 2
    shown.click("article .row:nth-child(2) .bar")
    wait_until(lambda: shown.evaluate("!document.querySelector('video').seeking"))
    assert shown.evaluate("document.querySelector('video').currentTime") == pytest.approx(3, abs=0.1)
    left = "parseFloat(document.querySelector('.bar').style.getPropertyValue('--now'))"
    wait_until(lambda: abs(shown.evaluate(left) - 50) < 2)


def test_a_keypoint_of_the_frame_that_is_shown_says_what_it_is(shown: Page) -> None:
    shown.evaluate("document.querySelector('video').currentTime = 1.0")  # frame 75 of the film that was sent
    wait_until(lambda: shown.evaluate("!document.querySelector('video').seeking"))
    x, y = 40 + 75 + 3 * 7, 60 + 8 * 7
    shares = f"box.x + box.width * {(x + 0.5) / WIDTH}", f"box.y + box.height * {(y + 0.5) / HEIGHT}"
    shown.evaluate("document.querySelector('.player').scrollIntoView({block: 'center'})")
    box = "const player = document.querySelector('.player'), box = player.getBoundingClientRect();"
    event = f"new PointerEvent('pointermove', {{clientX: {shares[0]}, clientY: {shares[1]}}})"
    shown.evaluate(f"{{ {box} player.dispatchEvent({event}); }}")
    assert shown.evaluate("tip.textContent") == f"person 3 · left wrist · {x}, {y} · 0.90"
    assert shown.evaluate(INK)
    shown.evaluate("document.querySelector('.player').dispatchEvent(new PointerEvent('pointerleave'))")
    assert shown.evaluate("tip.hidden")
    assert not shown.evaluate(INK)


def test_without_a_film_the_people_are_drawn_alone(shown: Page) -> None:
    gone = "document.querySelectorAll('article')[1]"
    wait_until(lambda: shown.evaluate(f"{gone}.querySelector('video') === null"))
    assert "cannot be played here" in shown.evaluate(f"{gone}.innerText")
    bare = "document.querySelectorAll('article')[2]"
    assert shown.evaluate(f"{bare}.querySelector('h2').textContent") == "bare"
    assert "<b>odd</b>" in shown.evaluate(f"{bare}.innerText")
    shown.click("article[data-name='bare'] .bar")
    ink = f"[...{bare}.querySelector('canvas').getContext('2d').getImageData(0, 0, 4000, 4000).data].some(v => v)"
    assert shown.evaluate(ink)


def test_a_film_that_was_not_drawn_is_played_itself(window: Page, tmp_path: Path) -> None:
    """Whose people are looked for from 2 s to 4 s."""
    grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    (tmp_path / "own.mp4").write_bytes(encode(((grey, number / FPS) for number in range(150)), 0.0, 50))
    found = lines(50, first=50)
    data = kept(found)
    result = video_result("j", described(data, "application/gzip"), found)
    report = Report(tmp_path / "report.html", films=tmp_path)
    report.add(Done(str(tmp_path / "own.mp4"), "own", result, keypoints=data))
    report.close()
    window.open((tmp_path / "report.html").as_uri())
    wait_until(lambda: window.evaluate("document.querySelector('video').readyState >= 2"))
    seen = []
    for moment in (1.0, 2.5, 5.0):
        window.evaluate(f"document.querySelector('video').currentTime = {moment}")
        wait_until(lambda: window.evaluate("!document.querySelector('video').seeking"))
        window.move(".player")
        seen.append(window.evaluate(INK))
    assert seen == [False, True, False]


def test_a_hostile_name_is_a_name(shown: Page) -> None:
    names = shown.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert names == ["film", HOSTILE, "bare"]


@pytest.mark.parametrize("width", [1200, 390])
def test_it_fits_screens_wide_and_narrow(shown: Page, page: Path, width: int) -> None:
    shown.open(page.as_uri(), width=width)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shapes = shown.evaluate("[...document.querySelectorAll('.player')].map(p => p.offsetHeight / p.offsetWidth)")
    assert shapes == pytest.approx([HEIGHT / WIDTH] * 3, abs=0.01)


def _card(done: Done, tmp_path: Path, *, drawn: bool = True, film: Optional[Path] = None) -> str:
    return film_card(done.name, done.outcome, done.keypoints or b"", film, tmp_path / "report.html", drawn=drawn)


def _embedded(card: str) -> Any:
    found = re.search(r'<script type="application/json">(.*?)</script>', card)
    assert found
    return json.loads(found[1])


def test_of_a_long_film_the_page_has_some_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _card(_done("a", None), tmp_path)
    assert len(_embedded(whole)["frames"]) == 150
    monkeypatch.setattr("worker.cli.film_card._MOST_JOINTS", 1500)
    thin = _card(_done("a", None), tmp_path)
    frames = _embedded(thin)["frames"]
    assert [moment for moment, _ in frames[:2]] == [2.0, 2.0 + 3 / FPS]
    assert sum((len(person) - 1) // 3 for _, people in frames for person in people) < 2000
    assert "keypoints of each 3rd frame are shown" in thin


def test_where_nobody_was_followed_the_timeline_says_when_anybody_is_seen(tmp_path: Path) -> None:
    found = lines(100, tracked=False)
    for line in found[30:70]:
        line["people"] = []
    card = _card(_done("a", None, found), tmp_path)
    assert "<span>anybody</span>" in card
    assert card.count("<i ") == 2
    assert _embedded(card)["frames"][0][1][0][0] == -1


def test_of_many_people_the_timeline_has_those_who_are_seen_for_longest(tmp_path: Path) -> None:
    tracks = [{"id": n, "first_frame": 0, "last_frame": n, "frames": n + 1, "spans_s": [(0, n)]} for n in range(60)]
    card = _card(_done("a", None, tracks=tracks), tmp_path)
    assert re.findall(r"<span>(\d+)</span>", card) == [str(n) for n in range(20, 60)]
    assert "20 more were seen" in card


@pytest.mark.parametrize("joints", [[[1, 2, 3]], [[1, "x", 3]] * 18, 7, [[float("nan"), 1, 1]] * 18])
def test_keypoints_that_are_none_are_a_films_failure(tmp_path: Path, joints: Any) -> None:
    found = [{"frame": 0, "time_s": 0.0, "people": [{"id": 1, "score": 1, "keypoints": joints}]}]
    with pytest.raises(JobFailed, match="are none of a film"):
        _card(_done("a", None, found), tmp_path)


def test_a_film_beside_the_page_is_named_from_there(tmp_path: Path) -> None:
    card = _card(_done("a", b"x"), tmp_path, film=tmp_path / "javascript:alert(1)")
    assert '<video src="./javascript%3Aalert%281%29"' in card
