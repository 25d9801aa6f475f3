"""People in a message and back: arrays in memory, lists and nulls in JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from worker.contract import Keypoint, Options, OverlayOptions, Person, Result
from worker.pose.people import People
from worker.pose.skeleton import Limb, Skeleton
from worker.pose.skeletons import COCO_18, PARTS, SKELETONS

if TYPE_CHECKING:
    from worker.pose.estimator import EstimateOptions
    from worker.video_contract import VideoResult

#: Decimals of a position, in pixels, and of a confidence: finer than any net's precision.
_POSITION_DECIMALS = 2
_CONFIDENCE_DECIMALS = 4
_TENS = 10.0 ** np.array([_POSITION_DECIMALS, _POSITION_DECIMALS, _CONFIDENCE_DECIMALS])
#: Pixels of an image for each of the net's input, either way. With fewer, joints move by 0.5 % of a person.
_PIXELS_ENOUGH = 4


def from_people(people: People) -> List[Person]:
    """`people` for a result: a joint that was not found becomes null."""
    return [
        Person(
            score=rounded_score(score),
            keypoints=rounded(joints),
            **{part: rounded(found[number]) for part, found in people.parts.items()},
        )
        for number, (joints, score) in enumerate(zip(people.keypoints, people.scores))
    ]


def rounded(joints: np.ndarray) -> Tuple[Keypoint, ...]:
    """Joints, float32 (K, 3), as a result has them; null where one was not found."""
    # A float32 times a power of ten is exact in float64 here, so this is what Python's round makes of each.
    values = np.rint(joints.astype(np.float64) * _TENS) / _TENS
    return tuple(
        (x, y, confidence) if found else None
        for (x, y, confidence), found in zip(values.tolist(), (joints[:, 2] > 0).tolist())
    )


def rounded_score(score: float) -> float:
    """A person's score as a result has it."""
    return round(float(score), _CONFIDENCE_DECIMALS)


def to_people(persons: Sequence[Person], skeleton: Skeleton = COCO_18) -> People:
    """The people of a result as arrays: float32 (n, K, 3) with NaN, NaN, 0 where null, and float32 (n,).

    Args:
        skeleton: that of the result, see :func:`to_skeleton`.
    """
    missing = (np.nan, np.nan, 0.0)

    def array(name: str, of: Skeleton) -> np.ndarray:
        rows = [[joint or missing for joint in getattr(one, name) or [missing] * len(of.keypoints)] for one in persons]
        return np.asarray(rows, np.float32).reshape(-1, len(of.keypoints), 3)

    return People(
        keypoints=array("keypoints", skeleton),
        scores=np.asarray([person.score for person in persons], np.float32),
        parts={part: array(part, of) for part, (_, of) in PARTS.items() if any(getattr(one, part) for one in persons)},
    )


def to_skeleton(result: Union[Result, VideoResult]) -> Skeleton:
    """What of a person a result's keypoints are, as far as it says so: PAF channels are the net's own."""
    known = SKELETONS.get(result.skeleton)
    if not result.keypoint_names:  # from before results said so
        return COCO_18
    if known is not None and known.keypoints == result.keypoint_names:
        return known
    limbs = tuple(Limb(start, end) for start, end in result.limbs)
    return Skeleton(name=result.skeleton, keypoints=result.keypoint_names, limbs=limbs)


def to_estimate_options(options: Options) -> EstimateOptions:
    """A job's options for the estimator, with its preset filled in."""
    from worker.pose.estimator import EstimateOptions  # brings OpenCV, which clients do without

    chosen = options.effective()
    of_one_name = {field.name for field in fields(EstimateOptions)}
    return EstimateOptions(**chosen.model_dump(include=of_one_name), keep_maps=chosen.maps)


def side_enough(options: Options) -> Optional[int]:
    """Pixels of an image's shorter side that a job has a use for; None: all, as what is drawn or cut out needs them."""
    chosen = options.effective()
    if chosen.overlay_options is not None or chosen.refine != "off" or set(chosen.parts) != {"body"}:
        return None
    return max(1, round(_PIXELS_ENOUGH * chosen.target_height * max(chosen.scales)))


def to_style(options: OverlayOptions) -> Dict[str, Any]:
    """A job's options for :func:`worker.pose.draw_overlay`."""
    named = options.colors in ("keypoints", "people")
    colors = options.colors if named else [_bgr(color) for color in options.colors.split(",")]
    return {**options.model_dump(exclude={"quality"}), "colors": colors}


def _bgr(color: str) -> Tuple[int, int, int]:
    """``#rrggbb`` as blue, green, red."""
    red, green, blue = bytes.fromhex(color[1:])
    return blue, green, red
