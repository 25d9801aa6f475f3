"""A result, and what other tools make of it. NumPy and OpenCV are loaded when they are asked for."""

from __future__ import annotations

import csv
import io
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Tuple

from worker import contract
from worker.errors import InvalidRequest, SettingsError


class Result(contract.Result):
    """As in docs/message.md, with its people in other tools' formats."""

    def to_openpose(self, *, order: Optional[str] = None, keypoint_scale: int = 0) -> Dict[str, Any]:
        """The document that OpenPose writes for an image; see :func:`worker.pose.formats.openpose_json`.

        Raises:
            InvalidRequest: an unknown order or scale.
        """
        from worker.pose.formats import openpose_json

        size = self.image.width, self.image.height
        try:
            return openpose_json(*self.to_arrays(), order=order, keypoint_scale=keypoint_scale, size=size)
        except ValueError as exc:
            raise InvalidRequest(f"The result cannot be written so: {exc}.") from exc

    def to_coco(self, image_id: int) -> List[Dict[str, Any]]:
        """The people as entries of a COCO keypoint results file.

        Raises:
            InvalidRequest: the skeleton does not have all 17 keypoints of COCO.
        """
        from worker.pose.formats import coco_results

        people, skeleton = self.to_arrays()
        return coco_results(people, image_id, skeleton)

    def to_csv(self, *, header: bool = True) -> str:
        """A line for each person: image, person, score, and x, y and confidence of each keypoint by name."""
        from worker.pose.formats import csv_header, csv_rows

        people, skeleton = self.to_arrays()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([csv_header(skeleton)] if header else [])
        writer.writerows(csv_rows(people, self.image.path))
        return text.getvalue()

    def draw(self, image: Any, **style: Any) -> Any:
        """Draw the people on `image`, uint8 (H, W, 3) in BGR, or a PIL image; returns the same kind, a new one.

        The image must be as the net saw it: upright as EXIF has it, then turned by the job's `rotate`.

        Args:
            style: as :func:`worker.pose.overlay.draw_overlay`: background, alpha, thickness, render_threshold, colors.

        Raises:
            SettingsError: OpenCV is not installed here.
            InvalidRequest: the image has another size than the result's.
        """
        import numpy as np

        with _opencv():
            from worker.pose.overlay import draw_overlay
        is_array = isinstance(image, np.ndarray)
        pixels = image if is_array else np.asarray(image.convert("RGB"))[:, :, ::-1]
        if pixels.ndim != 3 or pixels.shape != (self.image.height, self.image.width, 3) or pixels.dtype != np.uint8:
            raise InvalidRequest(
                f"The result is of an image of {self.image.width}x{self.image.height}, not of {pixels.dtype} "
                f"{pixels.shape}; give that one, uint8 (H, W, 3), upright as EXIF has it, "
                "and turned by the job's rotate."
            )
        people, skeleton = self.to_arrays()
        drawn = draw_overlay(np.ascontiguousarray(pixels), people, skeleton=skeleton, **style)
        if is_array:
            return drawn
        from PIL import Image

        order = [2, 1, 0, *range(3, drawn.shape[2])]
        return Image.fromarray(np.ascontiguousarray(drawn[:, :, order]))

    def to_arrays(self) -> Tuple[Any, Any]:
        """The people as :class:`worker.pose.people.People`, and their :class:`worker.pose.skeleton.Skeleton`."""
        from worker.people import to_people, to_skeleton

        skeleton = to_skeleton(self)
        return to_people(self.people, skeleton), skeleton


@contextmanager
def _opencv() -> Iterator[None]:
    try:
        yield
    except ImportError as exc:
        raise SettingsError(
            f"draw() needs OpenCV, which is not installed here ({exc}); run pip install opencv-python-headless, or "
            "take the job's overlay()."
        ) from exc


__all__ = ["Result"]
