"""Download one large file over HTTP: resumed where it broke off, given up on when it stalls, checked at the end."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Tuple

from tqdm import tqdm

from models.catalog import SourceFile
from worker.engine.proto.parse import MAX_BYTES
from worker.errors import ModelError

#: Seconds without a byte after which a connection counts as stalled.
STALL_S = 30.0
#: Connections that bring next to nothing, one after the other, before a source is given up.
ATTEMPTS = 4
#: Bytes that a connection must bring, in all and in each STALL_S, to count as one that brings something.
LEAST = 1 << 14
_BLOCK = 1 << 20


def download(file: SourceFile, url: str, target: Path, *, stall_s: float = STALL_S, pause_s: float = 1.0) -> None:
    """Bring `file` from `url` to `target`, which appears only when it is whole and has the right checksum.

    What has arrived is kept in ``<target>.part``; a later call goes on from there.

    Args:
        stall_s: seconds without a byte, or with fewer than LEAST, after which the connection is made anew.
        pause_s: seconds before that; they double with each connection that brought next to nothing.

    Raises:
        ModelError: the source cannot be reached, keeps breaking off, or has another file than the one expected.
    """
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    fruitless = 0
    with tqdm(desc=file.name, total=file.bytes or None, unit="B", unit_scale=True, disable=None) as bar:
        while True:
            before = _size(part)
            try:
                if _receive(url, part, file.bytes, stall_s, bar):
                    break
                reason = "the connection ended early"
            except urllib.error.HTTPError as exc:
                exc.close()
                if exc.code == 416:  # what we have is longer than what there is
                    part.unlink()
                elif exc.code < 500 and exc.code not in (408, 429):
                    raise ModelError(f"{url} answered {exc.code} {exc.reason}.") from exc
                reason = f"it answered {exc.code} {exc.reason}"
            except (OSError, ValueError, http.client.HTTPException) as exc:  # ValueError: a header that is no number
                reason = str(getattr(exc, "reason", exc)) or type(exc).__name__
            fruitless = 0 if _size(part) >= before + LEAST else fruitless + 1
            if fruitless == ATTEMPTS:
                raise ModelError(
                    f"{url} cannot be downloaded ({reason}); {_size(part)} bytes are kept for the next try."
                )
            time.sleep(pause_s * 2**fruitless)
    if not file.is_at(part):
        said = f"{url} sent {_size(part)} bytes with {file.checksum_of(part)}, expected {file.checksum}"
        part.unlink()
        raise ModelError(f"{said}; they were thrown away.")
    part.replace(target)


def _receive(url: str, part: Path, expected: int, stall_s: float, bar: tqdm) -> bool:
    """One connection's worth of bytes; whether the file is whole now."""
    have = _size(part)
    if expected and have >= expected:
        return True
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=stall_s) as answer:
        start, total = _span(answer, have)
        total = expected or total
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            bar.update(start - bar.n)
            since, until = start, time.monotonic() + stall_s
            for block in iter(lambda: answer.read1(_BLOCK), b""):
                file.write(block)
                bar.update(len(block))
                if file.tell() > (expected or MAX_BYTES):
                    return True  # not our file: a longer one is not read to its end
                if time.monotonic() > until:
                    if file.tell() < since + LEAST:
                        raise TimeoutError(f"it sent {file.tell() - since} bytes in {stall_s:g} s")
                    since, until = file.tell(), time.monotonic() + stall_s
            return file.tell() >= total if total else True


def _span(answer: http.client.HTTPResponse, have: int) -> Tuple[int, int]:
    """Where the answer's bytes begin in the file, and how long the file is (0: not said)."""
    length = int(answer.headers.get("Content-Length") or 0)
    if answer.status != 206:
        return 0, length  # the server sends everything from the start
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if match is None or int(match.group(1)) > have:
        raise http.client.HTTPException("it sent another part of the file than the one asked for")
    return int(match.group(1)), 0 if match.group(2) == "*" else int(match.group(2))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
