"""COCO keypoint evaluation: labelled images in, average precision out (cocodataset.org, keypoint evaluation)."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from pydantic import BaseModel, Field, field_validator

from worker.cli.compare import Comparison, ImageTable, compare
from worker.errors import InvalidRequest, fault_in

#: Names of the figures, and where pycocotools' summary has them.
METRICS = {"AP": 0, "AP50": 1, "AP75": 2, "APm": 3, "APl": 4, "AR": 5}
#: COCO's category of people.
PERSON = 1


class LabelledImages:
    """The images of a COCO keypoint annotation file that a folder holds.

    Args:
        annotations: a file such as ``person_keypoints_val2017.json``.
        folder: where the images are, by the names that the file gives them.
        limit: how many of the images, from the first on, are looked at; None: all.

    Attributes:
        paths: of each image's id, its file, in the order of the annotation file.
        missing: how many images of the annotation file the folder does not hold; they are left out.

    Raises:
        InvalidRequest: the file is no such file, or the folder holds none of its images.
    """

    def __init__(self, annotations: Path, folder: Path, limit: Optional[int] = None) -> None:
        from pycocotools.coco import COCO

        self._truth = COCO()
        self._truth.dataset = _read(annotations)
        with contextlib.redirect_stdout(io.StringIO()):
            self._truth.createIndex()
        listed = {image["id"]: folder / image["file_name"] for image in self._truth.dataset["images"]}
        there = {number: path for number, path in listed.items() if path.is_file()}
        self.paths: Dict[int, Path] = dict(list(there.items())[:limit])
        self.missing = len(listed) - len(there)
        if not self.paths:
            raise InvalidRequest(f"{folder} holds none of the {len(listed)} images of {annotations}; check --images.")

    def score(self, results: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
        """AP and the other METRICS of COCO keypoint `results` over the images of the folder.

        A figure is None where no labelled person has the size that it is about.
        """
        if not results:
            return dict.fromkeys(METRICS, 0.0)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluated(results)
            evaluation.accumulate()
            evaluation.summarize()
        return {name: _figure(evaluation.stats[index]) for name, index in METRICS.items()}

    def compare(self, ours: Sequence[Dict[str, Any]], theirs: Sequence[Dict[str, Any]]) -> Comparison:
        """How much better the AP of one run's results is than another's, and whether that is chance."""
        return compare(self._tables(ours), self._tables(theirs))

    def _tables(self, results: Sequence[Dict[str, Any]]) -> List[ImageTable]:
        """What a run has found in each of the images in which there is somebody, labelled or found."""
        there = [entry for entry in results if entry["image_id"] in self.paths]
        # pycocotools wants somebody: one whom it never counts as found, as nobody is that far from every picture.
        nobody = {"image_id": next(iter(self.paths)), "category_id": PERSON, "keypoints": [-1e6] * 51, "score": -1e9}
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluated(there or [nobody])
        everybody = evaluation.evalImgs[: len(self.paths)]  # first come all sizes of people
        empty = {"dtIgnore": np.zeros((10, 0)), "dtMatches": np.zeros((10, 0)), "dtScores": [], "gtIgnore": []}
        return [ImageTable.of(entry or empty) for entry in everybody]

    def _evaluated(self, results: Sequence[Dict[str, Any]]) -> Any:
        from pycocotools.cocoeval import COCOeval

        evaluation = COCOeval(self._truth, self._truth.loadRes(list(results)), "keypoints")
        evaluation.params.imgIds = sorted(self.paths)
        evaluation.evaluate()
        return evaluation


def _figure(value: np.floating) -> Any:
    return None if value < 0 else round(float(value), 4)


class _Image(BaseModel):
    id: int
    file_name: str = Field(min_length=1)


class _Labelled(BaseModel):
    """A person; what a tool has left out is filled in where it follows from the rest."""

    image_id: int
    keypoints: List[float] = Field(min_length=51, max_length=51)
    area: float = Field(ge=0)
    bbox: List[float] = Field(min_length=4, max_length=4)
    iscrowd: int = 0
    num_keypoints: Optional[int] = None


class _Document(BaseModel):
    images: List[_Image] = Field(min_length=1)
    annotations: List[_Labelled]

    @field_validator("annotations", mode="before")
    @classmethod
    def _of_keypoints(cls, entries: Any) -> Any:
        found = [entry for entry in entries if "keypoints" in entry]
        if not found:
            raise ValueError("no people with 17 keypoints")
        return found


def _read(path: Path) -> Dict[str, Any]:
    """The file as pycocotools wants it; annotations that are not of keypoints are left out."""
    try:
        document = _Document.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as exc:
        raise InvalidRequest(
            f"{path} is not a COCO keypoint annotation file ({fault_in(exc)}); give one such as "
            "person_keypoints_val2017.json."
        ) from exc
    people = []
    for number, entry in enumerate(document.annotations, 1):  # pycocotools takes the id 0 for nobody
        seen = sum(visible > 0 for visible in entry.keypoints[2::3])
        counted = seen if entry.num_keypoints is None else entry.num_keypoints
        people.append({**entry.model_dump(), "id": number, "category_id": PERSON, "num_keypoints": counted})
    categories = [{"id": PERSON, "name": "person"}]
    return {
        "info": {},
        "images": [image.model_dump() for image in document.images],
        "annotations": people,
        "categories": categories,
    }
