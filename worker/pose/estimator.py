"""Images → people, given a net: anything that turns inputs into maps."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from worker.pose.decoder import decode
from worker.pose.geometry import Geometry, plan
from worker.pose.maps import MergedMaps, average_mirrored
from worker.pose.people import People
from worker.pose.preprocess import to_input
from worker.pose.refine import combine, plan_crops
from worker.pose.scoring import PERSON_SCORE
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import COCO_18

#: inputs uint8 (N, H, W, 3), BGR → heatmaps float32 (N, K + 1, h, w), PAFs float32 (N, 2 L, h, w)
InputsToMaps = Callable[[np.ndarray], Tuple[np.ndarray, np.ndarray]]
#: A shape → an unwritten uint8 array of it.
Room = Callable[[Tuple[int, ...]], np.ndarray]
anywhere: Room = partial(np.empty, dtype=np.uint8)
#: The scales at which crops are looked at, as factors on the target height.
REFINE_SCALES: Dict[str, Tuple[float, ...]] = {"once": (0.75,), "twice": (1.1, 0.6)}
#: Most people of an image who are looked at again, the best first.
MOST_CROPS = 32


@dataclass(frozen=True)
class EstimateOptions:
    """How people are looked for in an image.

    Attributes:
        target_height: height of the net's input, in pixels.
        scales: factors on target_height; the maps of several are merged.
        merge: ``avg`` or ``max``.
        flip: also look at the mirrored image, and average.
        refine: whether people who are small in the input are cut out, enlarged and looked at again: ``off``, ``once``,
            or ``twice``, which is at two scales.
        max_width: cap on the width of the net's input, in pixels.
        max_people: keep only the best-scored.
        min_score: leave out people scored lower; below PERSON_SCORE, fragments of people are given too.
        keep_maps: whether the estimate carries the maps that it was read from.
    """

    target_height: int = 368
    scales: Tuple[float, ...] = (1.0,)
    merge: str = "avg"
    flip: bool = False
    refine: str = "off"
    max_width: Optional[int] = None
    max_people: Optional[int] = None
    min_score: float = PERSON_SCORE
    keep_maps: bool = False


@dataclass(frozen=True)
class _Look:
    """What the net sees in one image, and the milliseconds that it took."""

    maps: MergedMaps
    preprocess_ms: float
    net_ms: float


@dataclass(frozen=True)
class Estimate:
    """The people in one image, milliseconds by stage, and what is worth knowing of how they were found.

    Attributes:
        maps: those that the people were read from, at first.
        crop_pixels: pixels that the net was given for a second look.
    """

    people: People
    skeleton: Skeleton
    timings_ms: Dict[str, float]
    warnings: Tuple[str, ...]
    maps: Optional[MergedMaps] = None
    crop_pixels: int = 0


@dataclass(frozen=True)
class Estimator:
    """Finds people.

    Args:
        net: see :data:`InputsToMaps`.
        stride: the net's input sides are multiples of it, its maps smaller by it.
        pad_value: what inputs are padded with.
        offset: how far right of and below the truth the net's answers lie, in pixels of the input.
        skeleton: what the net finds of a person.
        room: makes the arrays that inputs are written to, where the net can take them from; any memory if not given.
        at_once: most crops in one pass.
    """

    net: InputsToMaps
    stride: int = 8
    pad_value: int = 0
    offset: Tuple[float, float] = (0.0, 0.0)
    skeleton: Skeleton = COCO_18
    room: Room = anywhere
    at_once: int = 1

    def estimate(
        self,
        images: Sequence[np.ndarray],
        options: EstimateOptions,
        reduced: int = 1,
        most_pixels: Optional[int] = None,
    ) -> List[Estimate]:
        """Find the people in each image; images of equal input size share one pass of the net.

        Args:
            images: uint8 (H, W, 3), BGR, of any sizes.
            reduced: how many times larger their sources are, in whose pixels people are given.
            most_pixels: pixels that the net may be given for crops of an image; None: any.

        Raises:
            ValueError: an image has another shape or type, or is reduced and to be refined.
        """
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
                raise ValueError(f"expected an image uint8 (H,W,3), got {image.dtype} {image.shape}")
        second = options.refine != "off"
        if second and reduced != 1:
            raise ValueError("a reduced image lacks the pixels that a second look needs")
        # Who is scored low at first may be scored higher at second sight.
        least = min(options.min_score, PERSON_SCORE) if second else options.min_score
        estimates = [self._decode(look, least) for look in self._looks(images, options, reduced)]
        if second:
            estimates = [self._refined(*pair, options, most_pixels) for pair in zip(images, estimates)]
        return [
            replace(one, people=one.people.best(options.max_people), maps=one.maps if options.keep_maps else None)
            for one in estimates
        ]

    def _looks(self, images: Sequence[np.ndarray], options: EstimateOptions, reduced: int = 1) -> List[_Look]:
        """What the net sees in each image, at all scales."""
        merged: List[Optional[MergedMaps]] = [None] * len(images)
        preprocess_ms, net_ms = [0.0] * len(images), [0.0] * len(images)
        # The largest scale first: its grid is the one on which the others are merged.
        for scale in sorted(options.scales, reverse=True):
            sizes = [(image.shape[0] * reduced, image.shape[1] * reduced) for image in images]
            geometries = [self._plan(*size, scale, options) for size in sizes]
            for members in _by_shape(geometries):
                start = time.perf_counter()
                inputs = self._inputs([images[i] for i in members], [geometries[i] for i in members])
                ready = time.perf_counter()
                maps = self._look(inputs, [geometries[i] for i in members], options)
                spent = (ready - start) * 1000 / len(members)
                shared = (time.perf_counter() - ready) * 1000 / len(members)
                for i, one in zip(members, maps):
                    preprocess_ms[i] += spent
                    net_ms[i] += shared
                    merged[i] = MergedMaps.of(merged[i], one, geometries[i], options.merge)
        return [_Look(maps, preprocess_ms[i], net_ms[i]) for i, maps in enumerate(merged) if maps is not None]

    def _refined(
        self, image: np.ndarray, first: Estimate, options: EstimateOptions, most_pixels: Optional[int]
    ) -> Estimate:
        """`first` after a second look at its people."""
        assert first.maps is not None
        height, width = image.shape[:2]
        scales, side = REFINE_SCALES[options.refine], options.target_height
        chosen = replace(options, scales=scales, max_width=side)
        scale = first.maps.geometry.scale / max(options.scales)
        wanted = plan_crops(first.people, height, width, scale, side)
        crops = wanted[:MOST_CROPS]
        pixels = np.cumsum([0, *(self.net_pixels(crop.height, crop.width, chosen) for crop in crops)])
        if most_pixels is not None:
            pixels = pixels[: max(1, np.searchsorted(pixels, most_pixels, "right"))]
        # By shape, so that crops of one shape share passes.
        crops = sorted(crops[: len(pixels) - 1], key=lambda crop: crop.width / crop.height)
        looks: List[_Look] = []
        for some in (crops[i : i + self.at_once] for i in range(0, len(crops), self.at_once)):
            looks += self._looks([crop.cut(image, self.pad_value) for crop in some], chosen)
        start = time.perf_counter()
        found = []
        for crop, look in zip(crops, looks):
            maps = look.maps.with_part_of(first.maps, crop.left, crop.top, options.merge)
            people, _ = decode(maps.heatmaps, maps.pafs, maps.geometry, self.skeleton)
            found.append(crop.to_image(people, height, width))
        people = combine(first.people, crops, found, np.asarray(self.skeleton.sigmas)).scored(options.min_score)
        spent_ms = {
            "preprocess": sum(look.preprocess_ms for look in looks),
            "net": sum(look.net_ms for look in looks),
            "associate": (time.perf_counter() - start) * 1000,
        }
        left = len(wanted) - len(crops)
        warnings = (f"{left} people were not looked at again: there are too many for one job",) if left else ()
        return replace(
            first,
            people=people,
            timings_ms={stage: ms + spent_ms[stage] for stage, ms in first.timings_ms.items()},
            warnings=(*first.warnings, *warnings),
            crop_pixels=int(pixels[-1]),
        )

    def net_pixels(self, height: int, width: int, options: EstimateOptions) -> int:
        """Pixels of all inputs, mirrored ones too, that the net is given for an image of `height` × `width` pixels.

        Raises:
            ImageTooLarge: one of them would have more than an input may.
        """
        inputs = [self._plan(height, width, scale, options) for scale in options.scales]
        return sum(at.padded_height * at.padded_width for at in inputs) * (2 if options.flip else 1)

    def _plan(self, height: int, width: int, scale: float, options: EstimateOptions) -> Geometry:
        return plan(
            height,
            width,
            target_height=max(1, round(options.target_height * scale)),
            stride=self.stride,
            max_width=options.max_width and max(1, round(options.max_width * scale)),
            offset=self.offset,
        )

    def _inputs(self, images: Sequence[np.ndarray], geometries: Sequence[Geometry]) -> np.ndarray:
        """The images as inputs of one shape, (N, H, W, 3)."""
        first = geometries[0]
        inputs = self.room((len(images), first.padded_height, first.padded_width, 3))
        for image, geometry, one in zip(images, geometries, inputs):
            to_input(image, geometry, self.pad_value, one)
        return inputs

    def _look(
        self, inputs: np.ndarray, geometries: List[Geometry], options: EstimateOptions
    ) -> List[Tuple[np.ndarray, np.ndarray]]:
        heatmaps, pafs = self.net(inputs)
        if options.flip:
            # Only the image is mirrored, not its padding, so that both sets of maps lie on one grid.
            mirrored = self.room(inputs.shape)
            mirrored[...] = inputs
            for i, at in enumerate(geometries):
                mirrored[i, :, : at.net_width] = inputs[i, :, : at.net_width][:, ::-1]
            other = self.net(mirrored)
            for i, at in enumerate(geometries):
                average_mirrored(heatmaps[i], pafs[i], other[0][i], other[1][i], at, self.skeleton)
        return list(zip(heatmaps, pafs))

    def _decode(self, look: _Look, min_score: float) -> Estimate:
        start = time.perf_counter()
        maps = look.maps
        people, warnings = decode(maps.heatmaps, maps.pafs, maps.geometry, self.skeleton, min_score=min_score)
        associate_ms = (time.perf_counter() - start) * 1000
        timings = {"preprocess": look.preprocess_ms, "net": look.net_ms, "associate": associate_ms}
        return Estimate(people, self.skeleton, timings, warnings, maps)


def _by_shape(geometries: Sequence[Geometry]) -> List[List[int]]:
    groups: Dict[Tuple[int, int], List[int]] = {}
    for i, geometry in enumerate(geometries):
        groups.setdefault((geometry.padded_height, geometry.padded_width), []).append(i)
    return list(groups.values())
