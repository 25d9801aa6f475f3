"""What a batch writes of films: the keypoints of each, in as many forms as are wanted, and the drawn film."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Callable, Dict, Iterable, Optional

from worker.cli.writers import Done
from worker.errors import JobFailed
from worker.files import replacing, write_whole
from worker.people import to_skeleton
from worker.video.export import coco_json, csv_table, numpy_archive, openpose_zip
from worker.video.lines import FrameFound, loads
from worker.video_contract import VideoResult

#: What each form's file is called, after the film's name.
_NAMES = {"openpose": "openpose.zip", "coco": "coco.json", "csv": "people.csv", "numpy": "keypoints.npz"}


class FilmFiles:
    """``<name>_keypoints.jsonl.gz``, ``<name>_rendered.mp4``, and what `formats` names.

    Args:
        folder: for the files; made as needed.
        formats: of openpose, coco, csv and numpy.
        order, keypoint_scale: of OpenPose's files, see :func:`worker.pose.formats.openpose_json`.
    """

    def __init__(
        self, folder: Path, formats: Iterable[str] = (), *, order: Optional[str] = None, keypoint_scale: int = 0
    ) -> None:
        self._folder, self._formats = folder, list(dict.fromkeys(formats))
        self._order, self._scale = order, keypoint_scale

    def add(self, done: Done) -> None:
        """Write a film's files, each whole or not at all; raises JobFailed if its keypoints are none."""
        if not isinstance(done.outcome, VideoResult) or done.keypoints is None:
            return
        target = self._folder / done.name
        write_whole(target.with_name(f"{target.name}_keypoints.jsonl.gz"), done.keypoints)
        if done.picture is not None:
            write_whole(target.with_name(f"{target.name}_rendered.mp4"), done.picture)
        for form in self._formats:
            self._export(form, target, done.outcome, done.keypoints)

    def close(self) -> None:
        """Nothing is left to do."""

    def _export(self, form: str, target: Path, result: VideoResult, keypoints: bytes) -> None:
        skeleton = to_skeleton(result)
        size = result.video.width, result.video.height
        writers: Dict[str, Callable[[Iterable[FrameFound], BinaryIO], None]] = {
            "openpose": lambda frames, file: openpose_zip(
                frames,
                skeleton,
                file,
                stem=target.name,
                order=self._order,
                keypoint_scale=self._scale,
                size=size,
            ),
            "coco": lambda frames, file: coco_json(frames, skeleton, file),
            "csv": lambda frames, file: csv_table(frames, skeleton, file),
            "numpy": lambda frames, file: numpy_archive(frames, skeleton, file),
        }
        try:
            with replacing(target.with_name(f"{target.name}_{_NAMES[form]}")) as file:
                writers[form](loads(keypoints, skeleton), file)
        except ValueError as exc:
            raise JobFailed(f"The keypoints of job {result.job_id} cannot be written as {form} ({exc}).") from exc


__all__ = ["FilmFiles"]
