"""People in other tools' JSON, plain Python types, rounded on purpose: OpenPose 1.3, COCO results. Maps for NumPy."""

from __future__ import annotations

import io
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from worker.pose.geometry import Geometry
from worker.pose.people import People
from worker.pose.skeleton import BODY_25_FROM_18, BODY_25_MID_HIP, COCO_17_FROM_18

#: Significant digits that OpenPose writes of every number.
_DIGITS = 6
#: Decimals of COCO results' positions, confidences and scores.
_DECIMALS, _SCORE_DECIMALS = 3, 6
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
    *,
    order: str = "COCO-18",
    keypoint_scale: int = 0,
    size: Tuple[int, int] = (1, 1),
    ids: Optional[Sequence[int]] = None,
) -> Dict[str, Any]:
    """The document that OpenPose 1.3 writes as ``<stem>_keypoints.json``.

    Args:
        order: ``COCO-18`` or ``BODY_25``.
        keypoint_scale: 0: source pixels; 3: 0..1, from the first pixel to the last; 4: -1..1, likewise.
        size: the source image's width and height in pixels; needed for the scales 3 and 4.
        ids: of the people, where they are followed from image to image.

    Source: OpenPose's doc/02_output.md; the order of the keys, the digits and the zeros for a joint that was not found
    are as OpenPose writes them. Its `person_id` is -1 where nobody is tracked.

    Raises:
        ValueError: an unknown order or scale.
    """
    joints = _ordered(people, order)
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


def coco_results(people: People, image_id: int, ids: Optional[Sequence[int]] = None) -> List[Dict[str, Any]]:
    """The people as entries of a COCO keypoint results file; joints that were not found are 0, 0, 0.

    With `ids`, each entry has its ``track_id``, as PoseTrack's files do.
    """
    chosen = people.keypoints[:, list(COCO_17_FROM_18)].astype(float)
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


def maps_archive(heatmaps: np.ndarray, pafs: np.ndarray, geometry: Geometry) -> bytes:
    """The net's maps as a compressed ``.npz``, the same bytes for the same maps.

    Args:
        heatmaps: float (19, h, w).
        pafs: float (38, h, w).
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


def _ordered(people: People, order: str) -> np.ndarray:
    if order == "COCO-18":
        return people.keypoints.astype(float)
    if order != "BODY_25":
        raise ValueError(f"order {order!r} is not COCO-18 or BODY_25")
    joints = np.full((len(people), 25, 3), (np.nan, np.nan, 0.0))
    for index, joint in enumerate(BODY_25_FROM_18):
        if joint >= 0:
            joints[:, index] = people.keypoints[:, joint]
    right, left = people.keypoints[:, 8], people.keypoints[:, 11]
    both = (right[:, 2] > 0) & (left[:, 2] > 0)
    joints[both, BODY_25_MID_HIP, :2] = (right[both, :2] + left[both, :2]) / 2
    joints[both, BODY_25_MID_HIP, 2] = np.minimum(right[both, 2], left[both, 2])
    return joints


def _scaled(positions: np.ndarray, scale: int, size: Tuple[int, int]) -> np.ndarray:
    if scale == 0:
        return positions
    if scale not in (3, 4):
        raise ValueError(f"keypoint_scale {scale!r} is not 0, 3 or 4")
    share = positions / np.maximum(np.array(size, float) - 1, 1)
    return share if scale == 3 else share * 2 - 1
