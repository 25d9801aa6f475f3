"""Two runs over the same labelled images: is one better, or is that chance?

The images are drawn again, with replacement, many times, and both runs are scored on each draw: the spread of the
difference is what other images of the same kind could have given (a paired bootstrap: Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapters 13 and 16).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from worker.errors import InvalidRequest, fault_in

#: Draws of the images, and the share of them that the interval leaves out at each end.
_DRAWS, _TAIL = 1000, 0.025
#: Recalls at which COCO takes the precision.
_RECALLS = np.linspace(0.0, 1.0, 101)


class ImageTable(NamedTuple):
    """What pycocotools found of one image.

    Attributes:
        scores: float (d,), of the people that a run has found there.
        hits: bool (t, d): who is a labelled person, at each threshold of similarity.
        counted: bool (t, d): who counts at all.
        labelled: people who are to be found.
    """

    scores: np.ndarray
    hits: np.ndarray
    counted: np.ndarray
    labelled: int

    @classmethod
    def of(cls, entry: Dict[str, Any]) -> ImageTable:
        """From an entry of ``COCOeval.evalImgs``."""
        counted = ~np.asarray(entry["dtIgnore"], bool)
        hits = np.asarray(entry["dtMatches"]) > 0
        return cls(np.asarray(entry["dtScores"], float), hits, counted, int((np.asarray(entry["gtIgnore"]) == 0).sum()))


@dataclass(frozen=True)
class Comparison:
    """The difference of two runs' AP, and where it lies in 95 % of the draws."""

    difference: float
    low: float
    high: float


def compare(ours: Sequence[ImageTable], theirs: Sequence[ImageTable], seed: int = 0) -> Comparison:
    """How much better `ours` is than `theirs`; both are tables of the same images in the same order."""
    random = np.random.default_rng(seed)
    draws = [random.integers(0, len(ours), len(ours)) for _ in range(_DRAWS)]
    found = np.array([_ap([ours[i] for i in draw]) - _ap([theirs[i] for i in draw]) for draw in draws])
    low, high = np.nanquantile(found, [_TAIL, 1 - _TAIL])
    return Comparison(_ap(ours) - _ap(theirs), float(low), float(high))


def _ap(tables: Sequence[ImageTable]) -> float:
    """Average precision of some images, as COCOeval.accumulate has it; NaN if nobody is labelled in them."""
    labelled = sum(table.labelled for table in tables)
    if not labelled:
        return float("nan")
    filled = [table for table in tables if len(table.scores)]
    if not filled:
        return 0.0
    order = np.argsort(-np.concatenate([table.scores for table in filled]), kind="mergesort")
    hits = np.concatenate([table.hits for table in filled], 1)[:, order]
    counted = np.concatenate([table.counted for table in filled], 1)[:, order]
    right, wrong = np.cumsum(hits & counted, 1), np.cumsum(~hits & counted, 1)
    precisions = right / np.maximum(right + wrong, 1)
    precisions = np.maximum.accumulate(precisions[:, ::-1], 1)[:, ::-1]
    at = [np.searchsorted(row / labelled, _RECALLS, side="left") for row in right]
    padded = np.pad(precisions, ((0, 0), (0, 1)))
    return float(np.mean([row[where] for row, where in zip(padded, at)]))


class _Person(BaseModel):
    """An entry of a COCO keypoint results file."""

    image_id: int
    category_id: int = 1
    keypoints: List[float] = Field(min_length=51, max_length=51)
    score: float


def read_results(path: Path) -> List[Dict[str, Any]]:
    """The entries of a COCO keypoint results file; raises InvalidRequest if it is none."""
    try:
        entries = TypeAdapter(List[_Person]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as exc:
        raise InvalidRequest(
            f"{path} is not a COCO keypoint results file ({fault_in(exc)}); give one that evaluate has written with "
            "--out."
        ) from exc
    return [entry.model_dump() for entry in entries]
