"""The image gate before hundreds of hostile files: each is decoded or refused by name, in time; nothing leaks out."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import sys
import threading
import time
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.hostile_files import valid_images, write_files
from worker.errors import ImageError, ImageNotAllowed
from worker.images.formats import FORMATS
from worker.images.local import load_image
from worker.images.policy import ImagePolicy

#: Seconds of processor time within which any file must be decoded or refused; none takes a tenth.
_LIMIT_S = 5.0
#: Times that a file is asked for which is swapped all the while; a check by name misses within some dozens.
_LOADS = 1500


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (40, 30), (200, 10, 10)).save(path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, outside: Path, seed: int) -> Dict[str, List[str]]:
    return write_files(tmp_path_factory.mktemp("hostile"), outside, seed)


@pytest.fixture(scope="module")
def policy(files: Dict[str, List[str]]) -> ImagePolicy:
    root = str(Path(files["decoded"][0]).parent)
    return ImagePolicy(roots=(root,), max_bytes=1 << 20, max_pixels=10_000_000)


def _end(path: str, policy: ImagePolicy) -> str:
    """``decoded`` or ``refused``; anything else that `path` ends in fails the test."""
    began = time.process_time()
    try:
        picture = load_image(path, policy)
    except ImageError as exc:  # any other kind fails the test
        sentence, end = str(exc), "refused"
    else:
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.ndim == 3
        assert picture.pixels.shape[2] == 3
        assert picture.width * picture.height <= policy.max_pixels
        assert picture.format in FORMATS
        sentence, end = "", "decoded"
    assert "\n" not in sentence
    assert time.process_time() - began < _LIMIT_S
    return end


@pytest.mark.parametrize("kind", ["decoded", "refused", "either"])
def test_every_file_is_decoded_or_refused_by_name(files: Dict[str, List[str]], policy: ImagePolicy, kind: str) -> None:
    assert sum(map(len, files.values())) >= 300
    open_before = len([*Path("/proc/self/fd").iterdir()])
    ends = {path: _end(path, policy) for path in files[kind]}
    if kind != "either":
        assert {path: end for path, end in ends.items() if end != kind} == {}
    assert len([*Path("/proc/self/fd").iterdir()]) <= open_before + 1


def test_no_refusal_tells_what_is_in_a_file_outside(
    files: Dict[str, List[str]], policy: ImagePolicy, outside: Path
) -> None:
    there, nowhere = outside, outside.parent / "nowhere.png"
    told = []
    for path in (there, nowhere):
        with pytest.raises(ImageError) as caught:
            load_image(str(path), policy)
        told.append(str(caught.value).replace(path.name, "…"))
    assert told[0] == told[1]


@contextlib.contextmanager
def _swapping(link: Path, targets: Sequence[Path]) -> Iterator[None]:
    """Have `link` lead to each of `targets` in turn, as fast as can be; it is always there."""
    stop = threading.Event()

    def swap() -> None:
        for target in itertools.cycle(targets):
            if stop.is_set():
                return
            new = link.with_name("new")
            new.symlink_to(target)
            new.replace(link)

    link.symlink_to(targets[0])
    thread = threading.Thread(target=swap)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_file_that_is_swapped_all_the_time_never_shows_what_is_outside(
    tmp_path: Path, outside: Path, swapped: str
) -> None:
    """Between a check by name and a use by name there would be time for it."""
    root = tmp_path / "root"
    inside = root / "inside" / outside.name
    inside.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30), (10, 10, 200)).save(inside)
    link = root / "link"
    targets, path = (
        ([inside, outside], link) if swapped == "file" else ([inside.parent, outside.parent], link / inside.name)
    )
    policy, seen = ImagePolicy(roots=(str(root),)), {"inside": 0, "refused": 0}
    deadline = time.monotonic() + 30  # on a busy machine the other thread may hardly run at first
    with _swapping(link, targets):
        while sum(seen.values()) < _LOADS or (min(seen.values()) == 0 and time.monotonic() < deadline):
            try:
                blue, _green, red = load_image(str(path), policy).pixels[0, 0]
            except ImageNotAllowed:
                seen["refused"] += 1
            else:
                seen["inside"] += 1
                assert (blue, red) == (200, 10), f"the secret was seen after {seen}"
    assert min(seen.values()) > 0, seen


_VALID = list(valid_images(random.Random(20)).values())


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.tuples(st.sampled_from(_VALID), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9)), max_size=6)).map(
            lambda drawn: _overwritten(*drawn)
        ),
    )
)
def test_whatever_bytes_a_file_has(files: Dict[str, List[str]], policy: ImagePolicy, data: bytes) -> None:
    path = Path(policy.roots[0]) / "fuzzed"
    path.write_bytes(data)
    _end(str(path), policy)


def _overwritten(data: bytes, pieces: List[tuple]) -> bytes:
    """`data` with each piece written at its place, a fraction of the length."""
    file = io.BytesIO(data)
    for place, piece in pieces:
        file.seek(int(place * len(data)))
        file.write(piece)
    return file.getvalue()
