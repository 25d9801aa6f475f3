"""What a net finds of a person, as data: keypoints, limbs, their PAF channels, what is mirrored, what is drawn."""

from __future__ import annotations

import colorsys
from functools import cached_property
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Annotated

from worker.errors import InvalidRequest

#: Most keypoints of a skeleton: more than any net has, and few enough that a result stays small.
MOST_KEYPOINTS = 256
#: How far apart two people place a keypoint of which nothing better is known, see :attr:`Skeleton.sigmas`.
_SIGMA = 0.079
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Index = Annotated[int, Field(ge=0, lt=MOST_KEYPOINTS)]
Channel = Annotated[int, Field(ge=0, lt=256)]
Share = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
#: Blue, green, red.
Color = Tuple[Channel, Channel, Channel]


@dataclass(frozen=True, config=_STRICT)
class Limb:
    """Two keypoints, and the first of the two PAF channels (x, then y) that point from `start` to `end`."""

    start: Index
    end: Index
    #: None: the net has no field for it, and it is only drawn.
    paf: Optional[Channel] = None
    #: A limb that may join two parts of one person, but not begin a person by itself; it is not drawn.
    joins_only: bool = False


@dataclass(frozen=True, config=_STRICT)
class Skeleton:
    """Names of the keypoints in channel order, and what else is to be known of them.

    Raises:
        ValueError: one of them does not fit the others.
    """

    name: Name
    keypoints: Annotated[Tuple[Name, ...], Field(min_length=1, max_length=MOST_KEYPOINTS)]
    limbs: Annotated[Tuple[Limb, ...], Field(max_length=128)] = ()
    #: One for each keypoint, blue, green, red; empty: hues around the circle.
    colors: Tuple[Color, ...] = ()
    #: How far apart two people place each keypoint, as a share of the root of the person's area (cocodataset.org,
    #: keypoint evaluation). Empty: as shoulders.
    sigmas: Tuple[Share, ...] = ()
    #: Keypoints that change places when an image is mirrored; None: all that are called ``left_…`` and ``right_…``.
    mirror_pairs: Optional[Tuple[Tuple[Index, Index], ...]] = None

    @model_validator(mode="after")
    def _fits(self) -> Skeleton:
        count = len(self.keypoints)
        if len(set(self.keypoints)) < count:
            raise ValueError("two keypoints have the same name")
        for what, values in (("colors", self.colors), ("sigmas", self.sigmas)):
            if values and len(values) != count:
                raise ValueError(f"there are {len(values)} {what} for {count} keypoints")
        ends = [end for limb in self.limbs for end in (limb.start, limb.end)]
        last = max([*ends, *(end for pair in self.mirror_pairs or () for end in pair)], default=0)
        if last >= count:
            raise ValueError(f"keypoint {last} is not one of the {count}, which are counted from 0")
        if any(limb.start == limb.end for limb in self.limbs):
            raise ValueError("a limb has the same keypoint at both ends")
        taken = sorted(limb.paf for limb in self.limbs if limb.paf is not None)
        if any(after - before < 2 for before, after in zip(taken, taken[1:])):
            raise ValueError("two limbs share a PAF channel; each limb has two of its own")
        if sorted(self.mirrored) != list(range(count)):
            raise ValueError("a keypoint has two mirror images")
        if len(self.mirrored_fields) < len(taken):
            raise ValueError("a limb's mirror image is no limb; correct limbs or mirror_pairs")
        # Frozen, and so set as dataclasses do it themselves.
        object.__setattr__(self, "colors", self.colors or _hues(count))
        object.__setattr__(self, "sigmas", self.sigmas or (_SIGMA,) * count)
        return self

    @cached_property
    def limb_table(self) -> np.ndarray:
        """int32 (limbs, 4): start, end, PAF channel, joins_only; of limbs that have a field."""
        rows = [(one.start, one.end, one.paf, one.joins_only) for one in self.limbs if one.paf is not None]
        return np.array(rows, np.int32).reshape(-1, 4)

    @cached_property
    def drawn(self) -> Tuple[Tuple[int, int], ...]:
        """The ends of each limb that is drawn."""
        return tuple((limb.start, limb.end) for limb in self.limbs if not limb.joins_only)

    @cached_property
    def paf_channels(self) -> int:
        """How many PAF channels the limbs take."""
        return max((limb.paf + 2 for limb in self.limbs if limb.paf is not None), default=0)

    @cached_property
    def mirrored(self) -> Tuple[int, ...]:
        """For each keypoint, which one takes its place when the image is mirrored."""
        pairs = self._sides() if self.mirror_pairs is None else self.mirror_pairs
        places = list(range(len(self.keypoints)))
        for one, other in pairs:
            places[one], places[other] = other, one
        return tuple(places)

    def _sides(self) -> Sequence[Tuple[int, int]]:
        pairs = []
        for index, name in enumerate(self.keypoints):
            other = f"right_{name[len('left_') :]}"
            if name.startswith("left_") and other in self.keypoints:
                pairs.append((index, self.keypoints.index(other)))
        return pairs

    @cached_property
    def mirrored_fields(self) -> Dict[int, Tuple[int, int]]:
        """For each limb's first PAF channel that of its mirror image, and -1 if that one points the other way, else 1.

        A limb whose mirror image is no limb is left out.
        """
        channels = {(one.start, one.end): one.paf for one in self.limbs if one.paf is not None}
        fields = {}
        for (start, end), channel in channels.items():
            ends = self.mirrored[start], self.mirrored[end]
            for source, sign in ((channels.get(ends), 1), (channels.get(ends[::-1]), -1)):
                if source is not None and channel not in fields:
                    fields[channel] = (source, sign)
        return fields

    @property
    def least_parts(self) -> int:
        """Fewest keypoints of a person: four, but no more than half of a small skeleton."""
        return max(2, min(4, len(self.keypoints) // 2))

    def indices(self, names: Sequence[str]) -> List[int]:
        """Where each of `names` stands among the keypoints; -1 where it does not."""
        places = {name: index for index, name in enumerate(self.keypoints)}
        return [places.get(name, -1) for name in names]

    def all_of(self, names: Sequence[str], what: str) -> List[int]:
        """Where each of `names` stands among the keypoints.

        Raises:
            InvalidRequest: some do not; `what` says what they are wanted for.
        """
        found = self.indices(names)
        lacking = [name for name, index in zip(names, found) if index < 0]
        if lacking:
            raise InvalidRequest(
                f"The skeleton {self.name} has no {', '.join(lacking[:5])}{', …' if lacking[5:] else ''}, so there are "
                f"no {what} of it; take a net of another skeleton."
            )
        return found


def _hues(count: int) -> Tuple[Color, ...]:
    """`count` colours around the hue circle, red first, as OpenPose's COCO drawings have them; B, G, R."""
    hues = (colorsys.hsv_to_rgb(i / count, 1, 1) for i in range(count))
    return tuple((round(255 * blue), round(255 * green), round(255 * red)) for red, green, blue in hues)


def as_skeleton(document: Any) -> Skeleton:
    """A skeleton out of JSON's types; raises pydantic's ValidationError, which is a ValueError."""
    from pydantic import TypeAdapter

    return TypeAdapter(Skeleton).validate_python(document)
