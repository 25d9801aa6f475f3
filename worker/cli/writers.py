"""What a batch writes of images: a file of keypoints and a picture for each; COCO results and a table of all."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Protocol, Sequence, Tuple

from worker.client.outcome import AnyOutcome
from worker.contract import Result
from worker.errors import InvalidRequest
from worker.files import replacing, write_whole
from worker.people import to_people, to_skeleton
from worker.pose.formats import coco_results, csv_header, csv_rows, openpose_json
from worker.video_contract import VideoResult


@dataclass(frozen=True)
class Done:
    """An image or film that the batch is done with.

    Attributes:
        path: as it was submitted.
        name: what its files' names begin with, below the output folder.
        picture: the overlay's bytes, if there is one.
        maps: the archive of the net's maps, if there is one.
        ids: of the result's people, if they are followed from image to image.
        keypoints: a film's, as its job has kept them.
    """

    path: str
    name: str
    outcome: AnyOutcome
    picture: Optional[bytes] = None
    maps: Optional[bytes] = None
    ids: Optional[Tuple[int, ...]] = None
    keypoints: Optional[bytes] = None


class Writer(Protocol):
    """Takes the images and films of a batch one by one."""

    def add(self, done: Done) -> None:
        """Take one; a PoseError or OSError makes it a failure."""

    def close(self) -> None:
        """The batch has ended."""


class OpenPoseFiles:
    """``<name>_keypoints.json`` (OpenPose 1.3), ``<name>_rendered.jpg`` or ``.png``, ``<name>_maps.npz``.

    Args:
        folder: for the files; made as needed.
        order, keypoint_scale: see :func:`worker.pose.formats.openpose_json`.
    """

    def __init__(self, folder: Path, *, order: Optional[str] = None, keypoint_scale: int = 0) -> None:
        self._folder, self._order, self._scale = folder, order, keypoint_scale

    def add(self, done: Done) -> None:
        """Write an image's files, each whole or not at all."""
        if not isinstance(done.outcome, Result):
            return
        target, result = self._folder / done.name, done.outcome
        target.parent.mkdir(parents=True, exist_ok=True)
        size = result.image.width, result.image.height
        skeleton, ids = to_skeleton(result), done.ids
        people = to_people(result.people, skeleton)
        document = openpose_json(people, skeleton, order=self._order, keypoint_scale=self._scale, size=size, ids=ids)
        write_whole(target.with_name(f"{target.name}_keypoints.json"), json.dumps(document).encode())
        if done.picture is not None and result.overlay is not None:
            suffix = "png" if result.overlay.media_type == "image/png" else "jpg"
            write_whole(target.with_name(f"{target.name}_rendered.{suffix}"), done.picture)
        if done.maps is not None:
            write_whole(target.with_name(f"{target.name}_maps.npz"), done.maps)

    def close(self) -> None:
        """Nothing is left to do."""


class CocoFile:
    """The people of all images in one COCO keypoint results file; it appears when it is closed.

    An image's id is the number at the end of its name: 139 for ``000000000139.jpg``.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._open = path, ExitStack()
        self._file = self._open.enter_context(replacing(path))
        self._file.write(b"[")
        self._between = "\n"

    def add(self, done: Done) -> None:
        """Write an image's people; raises InvalidRequest if its name ends in no number."""
        _check_image(done, self._path, "coco")
        if not isinstance(done.outcome, Result):
            return
        number = re.search(r"(\d+)$", Path(done.path).stem)
        if number is None:
            raise InvalidRequest(
                f"{done.path!r} is not in {self._path}: its name ends in no number to be its image_id; rename it."
            )
        skeleton = to_skeleton(done.outcome)
        people = to_people(done.outcome.people, skeleton)
        for entry in coco_results(people, int(number[1]), skeleton, ids=done.ids):
            self._file.write((self._between + json.dumps(entry)).encode())
            self._between = ",\n"

    def close(self) -> None:
        """Let the file appear."""
        self._file.write(b"\n]\n")
        self._open.close()


class CsvFile:
    """The people of all images in one table, a row for each; it appears when it is closed.

    Its columns are of the first image's skeleton.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._open = path, ExitStack()
        self._file = self._open.enter_context(replacing(path))
        self._columns: List[str] = []

    def add(self, done: Done) -> None:
        """Write an image's people; raises InvalidRequest if their keypoints are others than those before them."""
        _check_image(done, self._path, "csv")
        if not isinstance(done.outcome, Result):
            return
        skeleton = to_skeleton(done.outcome)
        columns = csv_header(skeleton)
        if not self._columns:
            self._columns = columns
            self._write([columns])
        elif columns != self._columns:
            raise InvalidRequest(
                f"{done.path!r} is not in {self._path}: its net has another skeleton; write a table for each net."
            )
        self._write(csv_rows(to_people(done.outcome.people, skeleton), done.path))

    def close(self) -> None:
        """Let the file appear."""
        self._open.close()

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _check_image(done: Done, path: Path, form: str) -> None:
    if isinstance(done.outcome, VideoResult):
        raise InvalidRequest(f"{done.path!r} is not in {path}, which is of images; take --format {form} for films.")


__all__ = ["CocoFile", "CsvFile", "Done", "OpenPoseFiles", "Writer"]
