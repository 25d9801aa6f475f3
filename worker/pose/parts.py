"""Hands and faces: where they must be, going by the body, and what a net of them finds there.

Source of the boxes: Simon et al., "Hand Keypoint Detection in Single Images using Multiview Bootstrapping" (CVPR 2017),
and how OpenPose cuts them out. A hand lies beyond the wrist, on the line from the elbow, and is as large as the
forearm says. A face is between eyes and ears, and as large as these, and the neck, are apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

from worker.pose.estimator import InputsToMaps
from worker.pose.peaks import WEAK_THRESHOLD, find_peaks, interpolation
from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import PARTS

#: What a box is found from: the arm, from the hand on; the head.
_ARM = ("wrist", "elbow", "shoulder")
_HEAD = ("nose", "neck", "left_eye", "right_eye", "left_ear", "right_ear")
#: Where a hand's middle is beyond the wrist, as a share of the forearm; a hand's box as a multiple of the forearm, and
#: how much of the upper arm counts as a forearm that is seen from its end.
_BEYOND, _HAND, _UPPER_ARM = 0.33, 1.5, 0.9
#: A face's box as multiples of the distance of the eyes, of the ears, and of all that is known of the head together.
_EYES, _EARS, _TOGETHER = 3.0, 2.0, 0.85
#: Smaller boxes show nothing, in pixels.
_LEAST_SIDE = 8.0


@dataclass(frozen=True)
class PartNet:
    """A net of hands or of faces, as :class:`worker.pose.estimator.Estimator` has one of bodies."""

    net: InputsToMaps
    stride: int = 8
    pad_value: int = 0
    offset: Tuple[float, float] = (0.0, 0.0)
    #: Height and width of its inputs, in pixels.
    side: int = 368
    #: Most crops in one pass.
    at_once: int = 8


class Box(NamedTuple):
    """A square in source pixels; a left hand's is mirrored, for the net knows right hands."""

    left: float
    top: float
    side: float
    mirrored: bool = False

    def to_input(self, side: int) -> np.ndarray:
        """float (2, 3): the way of positions in the source into an input of `side` pixels."""
        scale = side / self.side
        x, y = (0.5 - self.left) * scale - 0.5, (0.5 - self.top) * scale - 0.5
        return np.array([[-scale, 0, side - 1 - x] if self.mirrored else [scale, 0, x], [0, scale, y]])


class _Crop(NamedTuple):
    part: str
    person: int
    box: Box


def find_parts(
    image: np.ndarray, people: People, skeleton: Skeleton, nets: Mapping[str, PartNet], most: int
) -> Tuple[People, Tuple[str, ...]]:
    """Find the hands or faces of `people`.

    Args:
        image: uint8 (H, W, 3), BGR, in which the people were found.
        skeleton: that of the people.
        nets: what to look with, by ``hands`` and ``face``.
        most: crops that the nets may be given; the first people go first.

    Returns:
        The people with their parts, and warnings.

    Raises:
        InvalidRequest: the skeleton lacks what these parts are found by.
    """
    kinds = {part: kind for part, (kind, _) in PARTS.items() if kind in nets}
    crops = list(_crops(people, skeleton, kinds))
    found = {part: np.full((len(people), len(PARTS[part][1].keypoints), 3), (np.nan, np.nan, 0.0)) for part in kinds}
    for kind, net in nets.items():
        chosen = [crop for crop in crops[:most] if kinds[crop.part] == kind]
        for some in (chosen[i : i + net.at_once] for i in range(0, len(chosen), net.at_once)):
            for crop, joints in zip(some, _look(image, [crop.box for crop in some], net)):
                found[crop.part][crop.person] = joints
    left = len(crops) - most
    warnings = (f"{left} hands and faces were not looked for: the job asks for too many pixels",) if left > 0 else ()
    return replace(people, parts=found), warnings


def _crops(people: People, skeleton: Skeleton, parts: Mapping[str, str]) -> Iterator[_Crop]:
    """The crops of all people, those of the first person first."""
    sides = {part: part.rpartition("_")[2] for part in parts if part != "face"}
    arms = {part: skeleton.all_of([f"{side}_{joint}" for joint in _ARM], "hands") for part, side in sides.items()}
    head = skeleton.all_of(_HEAD, "faces") if "face" in parts else []
    for person, joints in enumerate(people.keypoints.astype(float)):
        boxes = {part: hand_box(joints[arm], mirrored=sides[part] == "left") for part, arm in arms.items()}
        if head:
            boxes["face"] = face_box(joints[head])
        for part, box in boxes.items():
            if box is not None and box.side >= _LEAST_SIDE:
                yield _Crop(part, person, box)


def hand_box(arm: np.ndarray, *, mirrored: bool) -> Optional[Box]:
    """Where the hand of an arm is.

    Args:
        arm: float (3, 3): x, y and confidence of wrist, elbow and shoulder.

    Returns:
        None where one of them was not found.
    """
    if not (arm[:, 2] > 0).all():
        return None
    wrist, elbow, shoulder = arm[:, :2]
    forearm, upper = np.linalg.norm(wrist - elbow), np.linalg.norm(elbow - shoulder)
    return _around(wrist + _BEYOND * (wrist - elbow), _HAND * float(max(forearm, _UPPER_ARM * upper)), mirrored)


def face_box(head: np.ndarray) -> Optional[Box]:
    """Where a face is: the mean of what eyes, ears, and all together say.

    Args:
        head: float (6, 3): x, y and confidence of nose, neck, left and right eye, left and right ear.

    Returns:
        None where too little of it was found: a face that is seen from behind has no box.
    """
    seen, places = head[:, 2] > 0, head[:, :2]
    nose, neck = places[:2]
    eyes, ears = places[2:4][seen[2:4]], places[4:6][seen[4:6]]
    said: List[Tuple[np.ndarray, float]] = []
    if seen[:2].all() and len(eyes) and len(ears):
        both = len(eyes) == len(ears) == 2
        around = [*eyes, *ears] if both else [*eyes, *ears, nose]
        apart = [_apart(pair, nose) for pair in (eyes, ears)]
        said.append((np.mean(around, axis=0), _TOGETHER * (sum(apart) + float(np.linalg.norm(neck - nose)))))
    for pair, times in ((eyes, _EYES), (ears, _EARS)):
        if len(pair) == 2:
            said.append((pair.mean(0), times * _apart(pair, nose)))
    if not said:
        return None
    return _around(np.mean([middle for middle, _ in said], axis=0), float(np.mean([side for _, side in said])))


def _apart(pair: np.ndarray, nose: np.ndarray) -> float:
    """How far two eyes or ears are apart; of one that is seen from the side, how far it is from the nose."""
    return float(np.linalg.norm(pair[0] - (pair[1] if len(pair) == 2 else nose)))


def _around(middle: np.ndarray, side: float, mirrored: bool = False) -> Box:
    return Box(float(middle[0] - side / 2), float(middle[1] - side / 2), float(side), mirrored)


def _look(image: np.ndarray, boxes: Sequence[Box], net: PartNet) -> Iterator[np.ndarray]:
    """The keypoints in each box, float (K, 3), in source pixels; of each heatmap the highest peak."""
    ways = [box.to_input(net.side) for box in boxes]
    border = (net.pad_value,) * 3
    inputs = np.stack([cv2.warpAffine(image, way, (net.side, net.side), borderValue=border) for way in ways])
    heatmaps, _ = net.net(inputs)
    last = np.array(image.shape[1::-1]) - 1
    for way, maps in zip(ways, heatmaps):
        finite = np.nan_to_num(np.require(maps[:-1], np.float32, ("C", "W")), posinf=0.0, neginf=0.0)
        rows, columns = finite.shape[1:]
        peaks, counts, _, _ = find_peaks(finite, rows, columns, WEAK_THRESHOLD, 1, *interpolation())
        joints = peaks[:, 0].astype(float)
        at = (joints[:, :2] + 0.5) * net.stride - 0.5 - np.array(net.offset)
        joints[:, :2] = np.clip((at - way[:, 2]) / way[[0, 1], [0, 1]], 0, last)
        joints[:, 2] = np.minimum(joints[:, 2], 1.0)
        joints[counts == 0] = (np.nan, np.nan, 0.0)
        yield joints
