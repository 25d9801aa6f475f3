"""What was found in a film, in other tools' formats: OpenPose's files in a ZIP, COCO, CSV, NumPy.

Each is written frame by frame, but NumPy's, whose arrays are in memory: 250 bytes for each person of each frame.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from typing import Any, BinaryIO, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from worker.pose.formats import coco_results, csv_header, csv_rows, openpose_json
from worker.pose.skeleton import Skeleton
from worker.video.lines import FrameFound

#: The time of all files in a ZIP, so that the same people give the same bytes.
_THEN = (1980, 1, 1, 0, 0, 0)


def openpose_zip(
    frames: Iterable[FrameFound],
    skeleton: Skeleton,
    file: BinaryIO,
    *,
    stem: str,
    order: Optional[str] = None,
    keypoint_scale: int = 0,
    size: Tuple[int, int] = (1, 1),
) -> None:
    """A ZIP of what OpenPose writes of a film: ``<stem>_<frame>_keypoints.json`` for each frame, twelve digits.

    Args:
        order, keypoint_scale, size: see :func:`worker.pose.formats.openpose_json`.

    Raises:
        ValueError: an unknown order or scale.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        for found in frames:
            document = openpose_json(
                found.people, skeleton, order=order, keypoint_scale=keypoint_scale, size=size, ids=_ids(found)
            )
            entry = zipfile.ZipInfo(f"{stem}_{found.number:012}_keypoints.json", _THEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, json.dumps(document))


def coco_json(frames: Iterable[FrameFound], skeleton: Skeleton, file: BinaryIO) -> None:
    """COCO keypoint results, whose ``image_id`` is the frame's number; ``track_id`` is the person's id.

    Raises:
        InvalidRequest: the skeleton does not have all 17 keypoints of COCO.
    """
    between = b"[\n"
    for found in frames:
        for entry in coco_results(found.people, found.number, skeleton, ids=_ids(found)):
            file.write(between + json.dumps(entry).encode())
            between = b",\n"
    file.write(b"[]\n" if between == b"[\n" else b"\n]\n")


def csv_table(frames: Iterable[FrameFound], skeleton: Skeleton, file: BinaryIO) -> None:
    """A row for each person of each frame: frame, time_s, id (empty: not followed), score, and x, y, c by keypoint."""
    _write_rows(file, [["frame", "time_s", "id", *csv_header(skeleton)[2:]]])
    for found in frames:
        ids: Sequence[Any] = _ids(found) or [""] * len(found.people)
        rows = csv_rows(found.people, "")
        _write_rows(file, [[found.number, round(found.time_s, 6), one, *row[2:]] for one, row in zip(ids, rows)])


def numpy_archive(frames: Iterable[FrameFound], skeleton: Skeleton, file: BinaryIO) -> None:
    """A compressed ``.npz`` of F frames and, in their order, P people of K keypoints.

    ``frame`` int64 (F,) and ``time_s`` float64 (F,) are the frames'; ``person_frame`` int64 (P,) is each person's frame;
    ``id`` int64 (P,), -1: not followed; ``score`` float32 (P,); ``keypoints`` float32 (P, K, 3), x and y NaN and
    confidence 0 where a joint was not found; ``names`` (K,).
    """
    numbers: List[int] = []
    times: List[float] = []
    ids: List[int] = []
    owners: List[int] = []
    scores, keypoints = [np.zeros(0, np.float32)], [np.zeros((0, len(skeleton.keypoints), 3), np.float32)]
    for found in frames:
        numbers.append(found.number)
        times.append(found.time_s)
        ids += _ids(found) or [-1] * len(found.people)
        owners += [found.number] * len(found.people)
        scores.append(found.people.scores)
        keypoints.append(found.people.keypoints)
    np.savez_compressed(
        file,
        frame=np.array(numbers, np.int64),
        time_s=np.array(times, np.float64),
        person_frame=np.array(owners, np.int64),
        id=np.array(ids, np.int64),
        score=np.concatenate(scores),
        keypoints=np.concatenate(keypoints),
        names=np.array(skeleton.keypoints),
    )


def _ids(found: FrameFound) -> Optional[List[int]]:
    return None if found.ids is None else found.ids.tolist()


def _write_rows(file: BinaryIO, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write(text.getvalue().encode())


__all__ = ["coco_json", "csv_table", "numpy_archive", "openpose_zip"]
