"""People in other tools' formats, plain Python types, rounded on purpose: OpenPose 1.3, COCO, CSV. Maps for NumPy."""

from __future__ import annotations

import io
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from worker.pose.geometry import Geometry
from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import COCO_17, COCO_18, ORDERS, plain

#: Significant digits that OpenPose writes of every number.
_DIGITS = 6
#: Decimals of COCO results' positions, confidences and scores.
_DECIMALS, _SCORE_DECIMALS = 3, 6
#: Keypoints that are computed where an order has them and a skeleton does not.
_BETWEEN = {"mid_hip": ("right_hip", "left_hip"), "neck": ("right_shoulder", "left_shoulder")}
#: The lists that OpenPose 1.3 writes for each person, in its order; a body-only model fills one of them.
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
    joints = _ordered(people, skeleton, order)
    joints[..., :2] = _scaled(joints[..., :2], keypoint_scale, size)
    joints[~(joints[..., 2] > 0)] = 0.0  # OpenPose's own mark for a joint that was not found
    return {
        "version": 1.3,
        "people": [
            {
                "person_id": [number],
                "pose_keypoints_2d": [float(f"{value:.{_DIGITS}g}") for value in person.ravel()],
                **{key: [] for key in _PERSON_KEYS},
            }
            for number, person in zip([-1] * len(joints) if ids is None else ids, joints)
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
    places = skeleton.indices(names)
    joints = np.full((len(people), len(names), 3), (np.nan, np.nan, 0.0))
    for target, place in enumerate(places):
        if place >= 0:
            joints[:, target] = people.keypoints[:, place]
        elif names[target] in _BETWEEN:
            joints[:, target] = _between(people.keypoints, skeleton.indices(_BETWEEN[names[target]]))
    return joints


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
