"""The skeletons that nets are trained for, and the orders in which other tools list keypoints."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from pydantic import ValidationError

from worker.errors import ModelError, fault_in
from worker.pose.skeleton import Limb, Skeleton, as_skeleton

_ARMS_AND_LEGS = (
    *("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
)
_HEAD = ("right_eye", "left_eye", "right_ear", "left_ear")
_FEET = ("big_toe", "small_toe", "heel")
#: cocodataset.org, keypoint evaluation; the neck, which COCO does not have, as a shoulder.
_SIGMAS = {
    **{"nose": 0.026, "neck": 0.079, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062},
    **{"hip": 0.107, "knee": 0.087, "ankle": 0.089},
}


def _sigmas(keypoints: Tuple[str, ...]) -> Tuple[float, ...]:
    """By the names without their sides; what COCO does not have is as a shoulder."""
    return tuple(_SIGMAS.get(name.rpartition("_")[2], _SIGMAS["shoulder"]) for name in keypoints)


def _chains(*chains: Tuple[int, ...]) -> Tuple[Limb, ...]:
    """Limbs that are only drawn, from each keypoint of a chain to the next."""
    return tuple(Limb(start, end) for chain in chains for start, end in zip(chain, chain[1:]))


def _of_body(name: str, keypoints: Tuple[str, ...], limbs: Tuple[Limb, ...]) -> Skeleton:
    return Skeleton(name=name, keypoints=keypoints, limbs=limbs, sigmas=_sigmas(keypoints))


#: The order of OpenPose's COCO model (Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity
#: Fields", CVPR 2017); heatmap 18 is the background.
COCO_18 = _of_body(
    "coco_18",
    ("nose", "neck", *_ARMS_AND_LEGS, *_HEAD),
    (
        *(Limb(1, 2, 12), Limb(1, 5, 20), Limb(2, 3, 14), Limb(3, 4, 16), Limb(5, 6, 22), Limb(6, 7, 24)),
        *(Limb(1, 8, 0), Limb(8, 9, 2), Limb(9, 10, 4), Limb(1, 11, 6), Limb(11, 12, 8), Limb(12, 13, 10)),
        *(Limb(1, 0, 28), Limb(0, 14, 30), Limb(14, 16, 34), Limb(0, 15, 32), Limb(15, 17, 36)),
        *(Limb(2, 16, 18, joins_only=True), Limb(5, 17, 26, joins_only=True)),
    ),
)

#: OpenPose's default: COCO-18 with the middle of the hips, and the feet.
BODY_25 = _of_body(
    "body_25",
    (
        *("nose", "neck", *_ARMS_AND_LEGS[:6], "mid_hip", *_ARMS_AND_LEGS[6:], *_HEAD),
        *(f"left_{part}" for part in _FEET),
        *(f"right_{part}" for part in _FEET),
    ),
    (
        *(Limb(1, 8, 0), Limb(1, 2, 14), Limb(1, 5, 22), Limb(2, 3, 16), Limb(3, 4, 18), Limb(5, 6, 24)),
        *(Limb(6, 7, 26), Limb(8, 9, 6), Limb(9, 10, 2), Limb(10, 11, 4), Limb(8, 12, 8), Limb(12, 13, 10)),
        *(Limb(13, 14, 12), Limb(1, 0, 30), Limb(0, 15, 32), Limb(15, 17, 36), Limb(0, 16, 34), Limb(16, 18, 38)),
        *(Limb(2, 17, 20, joins_only=True), Limb(5, 18, 28, joins_only=True)),
        *(Limb(14, 19, 40), Limb(19, 20, 42), Limb(14, 21, 44)),
        *(Limb(11, 22, 46), Limb(22, 23, 48), Limb(11, 24, 50)),
    ),
)

#: OpenPose's MPI model: the top of the head in place of the face, and the middle of the chest.
MPI_15 = _of_body(
    "mpi_15",
    ("head", "neck", *_ARMS_AND_LEGS, "chest"),
    tuple(
        Limb(start, end, 2 * number)
        for number, (start, end) in enumerate(
            [
                *((0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7)),
                *((1, 14), (14, 8), (8, 9), (9, 10), (14, 11), (11, 12), (12, 13)),
            ]
        )
    ),
)

_FINGERS = ("thumb", "index", "middle", "ring", "little")
#: OpenPose's hand model, of a left or a right hand: the wrist, then each finger from its root to its tip.
HAND_21 = Skeleton(
    name="hand_21",
    keypoints=("wrist", *(f"{finger}_{number}" for finger in _FINGERS for number in range(1, 5))),
    limbs=_chains(*((0, *range(first, first + 4)) for first in range(1, 21, 4))),
)

#: OpenPose's face model: the 68 points of iBUG (Sagonas et al., "300 Faces in-the-Wild Challenge", 2013), which are
#: counted along jaw, brows, nose, eyes and lips; then the right and the left pupil.
FACE_70 = Skeleton(
    name="face_70",
    keypoints=tuple(f"face_{number}" for number in range(70)),
    limbs=_chains(
        *(tuple(range(17)), tuple(range(17, 22)), tuple(range(22, 27)), tuple(range(27, 31)), tuple(range(31, 36))),
        *((*range(36, 42), 36), (*range(42, 48), 42), (*range(48, 60), 48), (*range(60, 68), 60)),
    ),
    colors=((255, 255, 255),) * 70,
)

SKELETONS: Dict[str, Skeleton] = {one.name: one for one in (COCO_18, BODY_25, MPI_15, HAND_21, FACE_70)}

#: What people may have beside their bodies: by what name a job asks for it, and what of it is found.
PARTS: Dict[str, Tuple[str, Skeleton]] = {
    "hand_left": ("hands", HAND_21),
    "hand_right": ("hands", HAND_21),
    "face": ("face", FACE_70),
}

#: COCO's keypoints (cocodataset.org, keypoint detection).
COCO_17 = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
#: Orders that keypoints can be put in, by name.
ORDERS: Dict[str, Tuple[str, ...]] = {
    **{name: SKELETONS[name].keypoints for name in ("coco_18", "body_25", "mpi_15")},
    "coco_17": COCO_17,
    # COCO-WholeBody (Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020): body, feet, face, hands.
    "coco_133": (
        *COCO_17,
        *(f"{side}_{part}" for side in ("left", "right") for part in _FEET),
        *FACE_70.keypoints[:68],
        *(f"{side}_hand_{name}" for side in ("left", "right") for name in HAND_21.keypoints),
    ),
}


def plain(name: str) -> str:
    """A skeleton's or an order's name as it stands in the tables: ``COCO-18`` is ``coco_18``."""
    return name.lower().replace("-", "_")


def skeleton_of(net: str, stated: Any, channels: Tuple[int, int]) -> Skeleton:
    """The skeleton that a net's manifest states.

    Args:
        net: the net's name.
        stated: a name in SKELETONS; or a skeleton of its own, as JSON has it.
        channels: how many channels of heatmaps, and of PAFs, the manifest has.

    Raises:
        ModelError: there is none of that name, it has a fault, or it does not fit the channels.
    """
    if isinstance(stated, str):
        if plain(stated) not in SKELETONS:
            raise ModelError(
                f"The net {net!r} has the skeleton {stated!r}, but there are {', '.join(SKELETONS)}; name one of them, "
                "or put a whole one into its model.json."
            )
        skeleton = SKELETONS[plain(stated)]
    else:
        try:
            skeleton = as_skeleton(stated)
        except ValidationError as exc:
            raise ModelError(
                f"The net {net!r} has a skeleton of its own with a fault ({fault_in(exc)}); see docs/models.md."
            ) from exc
    wanted: List[int] = [len(skeleton.keypoints) + 1, skeleton.paf_channels]
    if list(channels) != wanted:
        raise ModelError(
            f"The net {net!r} has {channels[0]} channels of heatmaps and {channels[1]} of PAFs, but its skeleton "
            f"{skeleton.name} asks for {wanted[0]} and {wanted[1]}; correct one of the two."
        )
    return skeleton
