"""Nets that this package knows by heart: they can be looked at, and filled with bare weights, without a definition."""

from __future__ import annotations

import functools
from typing import Callable, Dict

from models.architectures import openpose
from models.architectures.architecture import Architecture
from models.architectures.body_25 import body_25
from models.architectures.lightweight import lightweight_openpose

#: What `architecture` of a catalogue's entry may be → its builder.
ARCHITECTURES: Dict[str, Callable[[], Architecture]] = {
    "body_25": body_25,
    "cmu_coco": functools.partial(openpose.body, "data", 19, 38),
    "cmu_face": functools.partial(openpose.part, 71),
    "cmu_hand": functools.partial(openpose.part, 22),
    "cmu_mpi": functools.partial(openpose.body, "image", 16, 28),
    "lightweight_openpose": lightweight_openpose,
    "lightweight_openpose_3": functools.partial(lightweight_openpose, 3),
}

__all__ = ["ARCHITECTURES", "Architecture"]
