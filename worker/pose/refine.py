"""A second look: people who are small in the net's input are cut out, enlarged, and looked at again.

The rules, in their order:

1. Each person has a crop: the box of the joints, with a margin, brought to one of few shapes. Who would not be enlarged
   by it is not looked at again.
2. The net looks at the crops; their maps are merged with what the first look saw there.
3. Of the people in a crop, the one most similar to the person it was made for is that person. Joints found again
   replace the first ones; the others stay.
4. Others in a crop are new people, if they are scored well enough.
5. Of two who are similar, the one scored lower is dropped. Similarity is COCO's object keypoint similarity
   (cocodataset.org, keypoint evaluation) over the joints that both have.
"""

from __future__ import annotations

from typing import List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from worker.pose.people import People
from worker.pose.scoring import PERSON_SCORE
from worker.pose.tracking import body_areas

#: Around the joints' box, as a share of its longer side.
_MARGIN = 0.3
#: The shorter side of a crop, as a share of the longer one: few, so that crops share passes.
_SHAPES = (0.6, 0.8, 1.0)
#: A crop must enlarge by this much; else the second look sees nothing that the first did not.
_ENLARGES = 1.2
#: From which similarity on two people are the same: the person and one in their crop; any two.
_SAME, _DOUBLE = 0.2, 0.4
#: What new people score at least: at a crop's edge are halves of others.
_NEW = 0.2
#: Joints in common below which a similarity counts for less: one joint alone says little.
_ENOUGH_JOINTS = 3


class Crop(NamedTuple):
    """A rectangle in source pixels around one person; it may reach beyond the image."""

    person: int
    left: int
    top: int
    width: int
    height: int

    def cut(self, image: np.ndarray, pad_value: int) -> np.ndarray:
        """The image's pixels, uint8 (height, width, 3); beyond its edges `pad_value`."""
        top, left = max(self.top, 0), max(self.left, 0)
        inside = image[top : self.top + self.height, left : self.left + self.width]
        above, before = top - self.top, left - self.left
        below, after = self.height - above - inside.shape[0], self.width - before - inside.shape[1]
        if not any((above, before, below, after)):
            return inside
        border = (pad_value,) * 3
        return cv2.copyMakeBorder(inside, above, below, before, after, cv2.BORDER_CONSTANT, value=border)

    def to_image(self, people: People, height: int, width: int) -> People:
        """People found in the crop, in pixels of its image of `height` × `width`."""
        keypoints = people.keypoints.copy()
        keypoints[..., :2] = np.clip(keypoints[..., :2] + (self.left, self.top), 0, (width - 1, height - 1))
        return People(keypoints, people.scores)


def plan_crops(people: People, height: int, width: int, scale: float, side: int) -> List[Crop]:
    """The crops of those whom an input of `side` pixels shows larger than one of the whole image did.

    Args:
        people: as found in an image of `height` × `width` pixels.
        scale: pixels of the first input for each of the image's.
    """
    crops = []
    for person, joints in enumerate(people.keypoints):
        if people.scores[person] < PERSON_SCORE:
            continue
        seen = joints[joints[:, 2] > 0, :2].astype(float)
        low, high = seen.min(0), seen.max(0) + 1
        margin = _MARGIN * (high - low).max()
        low, high = low - margin, high + margin
        # Of a multiple of five, all of these shares are whole: crops of one shape are inputs of one shape.
        longer = max(int(np.ceil((high - low).max() / 5)) * 5, 15)
        if side < _ENLARGES * scale * longer:
            continue
        sides = [_canonical(each, longer) for each in high - low]
        middle = (low + high) / 2
        left, top = (_inside(middle[i] - sides[i] / 2, sides[i], edge) for i, edge in enumerate((width, height)))
        crops.append(Crop(person, left, top, *sides))
    return crops


def _canonical(side: float, longer: int) -> int:
    return next(round(share * longer) for share in _SHAPES if side <= share * longer)


def _inside(start: float, length: int, edge: int) -> int:
    """A start from which `length` pixels are inside an image that ends at `edge`, as far as they can be."""
    if length >= edge:
        return round((edge - length) / 2)
    return min(max(round(start), 0), edge - length)


def combine(people: People, crops: Sequence[Crop], found: Sequence[People], sigmas: np.ndarray) -> People:
    """What both looks say together, best first.

    Args:
        people: of the first look.
        crops: whom it was looked for again.
        found: of each crop the people in it, in source pixels.
    """
    keypoints, scores = people.keypoints.copy(), people.scores.copy()
    others: List[Tuple[np.ndarray, float]] = []
    for crop, inside in zip(crops, found):
        alike = similarities(people.keypoints[crop.person][None], inside.keypoints, sigmas)[0]
        same = int(alike.argmax()) if len(alike) and alike.max() >= _SAME else None
        for number, (joints, score) in enumerate(zip(inside.keypoints, inside.scores)):
            if number == same:
                keypoints[crop.person] = np.where(joints[:, 2:] > 0, joints, keypoints[crop.person])
                scores[crop.person] = score
            elif score >= _NEW:
                others.append((joints, score))
    if others:
        keypoints = np.concatenate([keypoints, [joints for joints, _ in others]])
        scores = np.concatenate([scores, [score for _, score in others]]).astype(np.float32)
    return without_doubles(People(keypoints, scores), sigmas)


def without_doubles(people: People, sigmas: np.ndarray) -> People:
    """Those who are similar to nobody scored better, best first."""
    alike = similarities(people.keypoints, people.keypoints, sigmas)
    kept: List[int] = []
    for one in np.argsort(-people.scores, kind="stable"):
        if not kept or alike[one, kept].max() < _DOUBLE:
            kept.append(int(one))
    return People(people.keypoints[kept], people.scores[kept])


def similarities(some: np.ndarray, others: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """float (m, n) from 0 to 1: how alike people are; keypoints float (m, K, 3) and (n, K, 3)."""
    if not len(some) or not len(others):
        return np.zeros((len(some), len(others)))
    one, other = (np.where(each[..., 2:] > 0, each[..., :2], np.nan).astype(float) for each in (some, others))
    areas = np.maximum(body_areas(one)[:, None], body_areas(other)[None])
    squares = ((one[:, None] - other[None]) ** 2).sum(-1)
    alike = np.exp(-squares / (2 * (2 * np.asarray(sigmas)) ** 2 * areas[..., None]))
    return np.asarray(np.nansum(alike, -1) / np.maximum(np.isfinite(squares).sum(-1), _ENOUGH_JOINTS))
