"""The page to look at: what it holds, that it asks nobody for anything, and what it does in a browser."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, Optional

import cv2
import numpy as np
import pytest

from tests.support import wait_until
from tests.support.browser import Page, browser
from worker.cli.report import Report
from worker.cli.writers import Done
from worker.contract import Image, Model, Result
from worker.errors import ImageUndecodable

WIDTH, HEIGHT = 640, 480
#: Undecodable bytes, a line end and a mark that turns the direction of writing, as file names may have them.
ODD = "a\udcff\n\u202egpj.exe"
HOSTILE = '"><script>document.title="broken in"</script><img src=http://127.0.0.1:1/x>&.jpg'
#: How it is shown.
SHOWN = "a\\udcff\\n\\u202egpj.exe"


def _result(people: int, total_ms: float = 100.0) -> Result:
    joints = [(100.0 + 20 * joint, 60.0 + 20 * joint, 0.5) if joint != 7 else None for joint in range(18)]
    shifted = [[joint and (joint[0] + 150 * number, *joint[1:]) for joint in joints] for number in range(people)]
    return Result(
        job_id="j",
        image=Image(path="/data/a.jpg", width=WIDTH, height=HEIGHT, format="JPEG"),
        model=Model(name="net", sha256="0"),
        people=[{"score": 0.9, "keypoints": person} for person in shifted],
        warnings=["only the first of 3 frames was looked at"] if people == 2 else [],
        timings_ms={"decode": 10.0, "net": total_ms - 10, "total": total_ms},
        worker="cpu0@here",
        device="cpu",
        attempt=1,
    )


def _picture(value: int, suffix: str = ".jpg") -> bytes:
    image = np.full((HEIGHT, WIDTH, 4 if suffix == ".png" else 3), value, np.uint8)
    return bytes(cv2.imencode(suffix, image)[1])


def _done(name: str, people: int, total_ms: float = 100.0, picture: Optional[bytes] = None) -> Done:
    return Done(f"/data/{name}.jpg", name, _result(people, total_ms), picture)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of six images, two of which failed."""
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    report = Report(path)
    report.add(_done("alone", 1, 90, _picture(200)))
    report.add(_done("pair", 2, 250, _picture(90, ".png")))
    report.add(_done("nobody", 0, 80, _picture(120)))
    report.add(_done(ODD, 1, 70))
    report.add(Done("/data/broken.jpg", "broken", ImageUndecodable("/data/broken.jpg is empty.")))
    report.add(Done(HOSTILE, HOSTILE, ImageUndecodable(f"{HOSTILE} is no image \udcff.")))
    assert not path.exists()
    report.close()
    return path


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
    return window


def _visible(shown: Page) -> Any:
    return shown.evaluate("[...document.querySelectorAll('article:not([hidden]) h2')].map(h => h.textContent)")


def test_it_is_one_file_that_names_no_other(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    assert "default-src 'none'" in text
    for outside in ("<link", "@import", "url(", "<iframe", 'src="http', 'href="'):
        assert outside not in text


def test_it_opens_from_disk_and_asks_for_nothing(shown: Page, page: Path) -> None:
    assert shown.requests[0] == page.as_uri()
    assert all(url.startswith("data:image/") for url in shown.requests[1:])
    assert shown.errors == []
    assert shown.evaluate("document.title") == "Pose report"
    wait_until(
        lambda: shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 640)")
    )
    assert shown.evaluate("document.images.length") == 3
    assert "6 of 6" in shown.evaluate("document.body.innerText")


def test_a_hostile_name_is_a_name(shown: Page) -> None:
    assert HOSTILE in _visible(shown)
    assert SHOWN in _visible(shown)
    assert shown.evaluate("document.querySelectorAll('main script').length") == 0


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("1", ["alone", SHOWN]),
        ("2", ["pair"]),
        ("0", ["nobody"]),
        ("failed", ["broken", HOSTILE]),
        ("all", ["alone", "pair", "nobody", SHOWN, "broken", HOSTILE]),
    ],
)
def test_filters(shown: Page, kind: str, names: Any) -> None:
    shown.click(f"nav button[value='{kind}']")
    assert _visible(shown) == names
    assert shown.evaluate(f"document.querySelector('button[value=\"{kind}\"]').ariaPressed") == "true"


def test_search_and_order(shown: Page) -> None:
    shown.evaluate("find.value = 'PAI'; find.dispatchEvent(new Event('input'))")
    assert _visible(shown) == ["pair"]
    shown.evaluate("find.value = 'zebra'; find.dispatchEvent(new Event('input'))")
    assert shown.evaluate("!document.getElementById('none').hidden")
    shown.evaluate("find.value = ''; find.dispatchEvent(new Event('input'))")
    for key, first in (("people", "pair"), ("ms", "pair"), ("name", HOSTILE), ("", "alone")):
        shown.evaluate(f"sort.value = '{key}'; sort.dispatchEvent(new Event('change'))")
        assert _visible(shown)[0] == first


def test_a_keypoint_says_what_it_is(shown: Page) -> None:
    joints = "article[data-name='pair'] g:nth-child(2) circle"
    shown.move(joints, 7)  # the wrist before it was not found
    assert shown.evaluate("tip.textContent") == "person 2 · right hip · 410, 220 · 0.50"
    assert not shown.evaluate("tip.hidden")
    box = "document.querySelector(\"article[data-name='pair'] figure\").getBoundingClientRect()"
    x, y = shown.evaluate(f"[{box}.x + {box}.width * 410.5 / 640, {box}.y + {box}.height * 220.5 / 480]")
    spot = "document.querySelectorAll(`" + joints + "`)[7].getBoundingClientRect()"
    at_x, at_y = shown.evaluate(f"[{spot}.x + {spot}.width / 2, {spot}.y + {spot}.height / 2]")
    assert (at_x, at_y) == pytest.approx((x, y), abs=1.5)  # it lies where the picture has it
    shown.move("h1")
    assert shown.evaluate("tip.hidden")


def test_a_picture_grows_when_it_is_clicked(shown: Page) -> None:
    width = "document.querySelector(\"article[data-name='alone']\").getBoundingClientRect().width"
    small = shown.evaluate(width)
    shown.click("article[data-name='alone'] h2")  # its text does not
    assert shown.evaluate(width) == small
    shown.click("article[data-name='alone'] figure")
    assert shown.evaluate(width) > 2 * small
    shown.click("article[data-name='alone'] figure")
    assert shown.evaluate(width) == small


@pytest.mark.parametrize("width", [1200, 390])
def test_it_fits_screens_wide_and_narrow(shown: Page, page: Path, tmp_path: Path, width: int) -> None:
    shown.open(page.as_uri(), width=width)
    assert shown.evaluate("document.querySelector('nav').offsetHeight") <= 100  # which stays in sight
    frames = shown.evaluate("[...document.querySelectorAll('figure')].map(f => f.offsetHeight / f.offsetWidth)")
    assert frames == pytest.approx([0.75] * 4, abs=0.01)  # before their pictures are loaded, too
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    picture = tmp_path / "report.png"
    shown.screenshot(picture)
    pixels = cv2.imread(str(picture))
    assert pixels.shape[:2] == (900, width)
    assert pixels.std() > 10  # not one colour
    if os.environ.get("KEEP_SCREENSHOT"):  # for a person to look at
        Path(os.environ["KEEP_SCREENSHOT"]).with_suffix(f".{width}.png").write_bytes(picture.read_bytes())


def test_large_pictures_are_made_small_and_many_need_no_memory(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2500, 3), np.uint8)
    large = bytes(cv2.imencode(".jpg", noise)[1])
    report = Report(tmp_path / "report.html")
    report.add(_done("warm", 1, picture=large))
    tracemalloc.start()
    for number in range(3):
        report.add(_done(str(number), 1, picture=large))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    report.close()
    assert kept < len(large)
    assert (tmp_path / "report.html").stat().st_size < 4 * len(large)


def test_images_a_second_count_from_the_first_jobs_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is still to start is no part of them."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("worker.cli.report.time", SimpleNamespace(monotonic=lambda: clock.now))
    report = Report(tmp_path / "report.html")
    for clock.now in (105.0, 105.5, 107.0):
        report.add(_done("a", 1, total_ms=1000))
    report.close()
    assert "<dt>images per second</dt><dd>1.0</dd>" in (tmp_path / "report.html").read_text()
