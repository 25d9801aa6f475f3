"""People in other tools' formats, plain Python types, rounded on purpose: OpenPose 1.3, COCO, CSV. Maps for NumPy."""

from __future__ import annotations

import io
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from worker.pose.geometry import Geometry
from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import COCO_17, COCO_18, ORDERS, PARTS, plain

#: Significant digits that OpenPose writes of every number.
_DIGITS = 6
#: Decimals of COCO results' positions, confidences and scores.
_DECIMALS, _SCORE_DECIMALS = 3, 6
#: Keypoints that are computed where an order has them and a skeleton does not.
_BETWEEN = {"mid_hip": ("right_hip", "left_hip"), "neck": ("right_shoulder", "left_shoulder")}
#: The lists that OpenPose 1.3 writes for each person after the body's, in its order; empty is what was not looked for.
_PERSON_KEYS = (
    "face_keypoints_2d",
    "hand_left_keypoints_2d",
    "hand_right_keypoints_2d",
    "pose_keypoints_3d",
    "face_keypoints_3d",
    "hand_left_keypoints_3d",
    "hand_right_keypoints_3d",
)


def openpose_json(
    people: People,
    skeleton: Skeleton = COCO_18,
    *,
    order: Optional[str] = None,
    keypoint_scale: int = 0,
    size: Tuple[int, int] = (1, 1),
    ids: Optional[Sequence[int]] = None,
) -> Dict[str, Any]:
    """The document that OpenPose 1.3 writes as ``<stem>_keypoints.json``.

    Args:
        skeleton: what of a person the keypoints are.
        order: one of :data:`worker.pose.skeletons.ORDERS`, such as ``BODY_25``, in which what the skeleton does not
            have is not found; None: the skeleton's own.
        keypoint_scale: 0: source pixels; 3: 0..1, from the first pixel to the last; 4: -1..1, likewise.
        size: the source image's width and height in pixels; needed for the scales 3 and 4.
        ids: of the people, where they are followed from image to image.

    Source: OpenPose's doc/02_output.md; the order of the keys, the digits and the zeros for a joint that was not found
    are as OpenPose writes them. Its `person_id` is -1 where nobody is tracked.

    Raises:
        ValueError: an unknown order or scale.
    """

    def numbers(joints: np.ndarray) -> List[List[float]]:
        """One list for each person."""
        joints[..., :2] = _scaled(joints[..., :2], keypoint_scale, size)
        joints[~(joints[..., 2] > 0)] = 0.0  # OpenPose's own mark for a joint that was not found
        return [[float(f"{value:.{_DIGITS}g}") for value in person.ravel()] for person in joints]

    bodies = numbers(_ordered(people, skeleton, order))
    parts = {f"{part}_keypoints_2d": numbers(joints.astype(float)) for part, joints in people.parts.items()}
    return {
        "version": 1.3,
        "people": [
            {
                "person_id": [number],
                "pose_keypoints_2d": body,
                **{key: parts[key][place] if key in parts else [] for key in _PERSON_KEYS},
            }
            for place, (number, body) in enumerate(zip([-1] * len(bodies) if ids is None else ids, bodies))
        ],
    }


def coco_results(
    people: People, image_id: int, skeleton: Skeleton = COCO_18, *, ids: Optional[Sequence[int]] = None
) -> List[Dict[str, Any]]:
    """The people as entries of a COCO keypoint results file; joints that were not found are 0, 0, 0.

    With `ids`, each entry has its ``track_id``, as PoseTrack's files do.

    Raises:
        InvalidRequest: the skeleton does not have all 17 keypoints of COCO.
    """
    chosen = people.keypoints[:, skeleton.all_of(COCO_17, "COCO results")].astype(float)
    chosen[~(chosen[..., 2] > 0)] = 0.0
    return [
        {
            "image_id": int(image_id),
            "category_id": 1,
            "keypoints": [round(float(value), _DECIMALS) for value in person.ravel()],
            "score": round(float(score), _SCORE_DECIMALS),
            **({} if ids is None else {"track_id": int(ids[index])}),
        }
        for index, (person, score) in enumerate(zip(chosen, people.scores))
    ]


def csv_header(skeleton: Skeleton) -> List[str]:
    """The columns of :func:`csv_rows`: image, person, score, and x, y and c (confidence) of each keypoint by name."""
    return ["image", "person", "score", *(f"{name}_{field}" for name in skeleton.keypoints for field in "xyc")]


def csv_rows(people: People, image: str) -> List[List[Any]]:
    """A row for each person, who are counted from 1; x and y are empty and c is 0 where a joint was not found."""
    rows: List[List[Any]] = []
    for number, (joints, score) in enumerate(zip(people.keypoints.astype(float), people.scores), 1):
        row: List[Any] = [image, number, round(float(score), _SCORE_DECIMALS)]
        for x, y, confidence in joints:
            found = confidence > 0
            row += [round(x, _DECIMALS), round(y, _DECIMALS)] if found else ["", ""]
            row.append(round(confidence, _SCORE_DECIMALS) if found else 0)
        rows.append(row)
    return rows


def maps_archive(heatmaps: np.ndarray, pafs: np.ndarray, geometry: Geometry) -> bytes:
    """The net's maps as a compressed ``.npz``, the same bytes for the same maps.

    Args:
        heatmaps: float (K + 1, h, w).
        pafs: float (2 L, h, w).
        geometry: how the maps' cells lie in the image.

    Returns:
        The archive of ``heatmaps`` and ``pafs`` as float16, ``cell``: the size of a cell in source pixels, and
        ``origin``: x and y of the centre of the first cell. A cell (x, y) lies at ``origin + cell * (x, y)``.
    """
    cell = geometry.stride / geometry.scale
    origin = (0.5 - np.array(geometry.offset) / geometry.stride) * cell - 0.5
    file = io.BytesIO()
    np.savez_compressed(
        file, heatmaps=heatmaps.astype(np.float16), pafs=pafs.astype(np.float16), cell=np.float64(cell), origin=origin
    )
    return file.getvalue()


def _ordered(people: People, skeleton: Skeleton, order: Optional[str]) -> np.ndarray:
    if order is None:
        return people.keypoints.astype(float)
    if plain(order) not in ORDERS:
        raise ValueError(f"order {order!r} is not one of {', '.join(ORDERS)}")
    names = ORDERS[plain(order)]
    everything, places = _joined(people, skeleton)
    joints = np.full((len(people), len(names), 3), (np.nan, np.nan, 0.0))
    for target, name in enumerate(names):
        if name in places:
            joints[:, target] = everything[:, places[name]]
        elif name in _BETWEEN:
            joints[:, target] = _between(people.keypoints, skeleton.indices(_BETWEEN[name]))
    return joints


def _joined(people: People, skeleton: Skeleton) -> Tuple[np.ndarray, Dict[str, int]]:
    """The keypoints of bodies, hands and faces as one array float (n, all, 3), and where each is, by name.

    A hand's keypoints are called ``left_hand_thumb_1`` and so on; what was not looked for is not there.
    """
    names, arrays = list(skeleton.keypoints), [people.keypoints]
    for part, joints in people.parts.items():
        side = {"hand_left": "left_hand_", "hand_right": "right_hand_"}.get(part, "")
        names += [f"{side}{name}" for name in PARTS[part][1].keypoints]
        arrays.append(joints)
    return np.concatenate(arrays, 1).astype(float), {name: place for place, name in enumerate(names)}


def _between(keypoints: np.ndarray, ends: List[int]) -> np.ndarray:
    """The middle of two keypoints, float (n, 3), as sure as the less sure; not found where one of them is not."""
    middle = np.full((len(keypoints), 3), (np.nan, np.nan, 0.0))
    if min(ends) >= 0:
        one, other = (keypoints[:, end].astype(float) for end in ends)
        both = (one[:, 2] > 0) & (other[:, 2] > 0)
        middle[both, :2] = (one[both, :2] + other[both, :2]) / 2
        middle[both, 2] = np.minimum(one[both, 2], other[both, 2])
    return middle


def _scaled(positions: np.ndarray, scale: int, size: Tuple[int, int]) -> np.ndarray:
    if scale == 0:
        return positions
    if scale not in (3, 4):
        raise ValueError(f"keypoint_scale {scale!r} is not 0, 3 or 4")
    share = positions / np.maximum(np.array(size, float) - 1, 1)
    return share if scale == 3 else share * 2 - 1
