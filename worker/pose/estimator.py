"""Images → people, given a net: anything that turns inputs into maps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from worker.pose.decoder import decode
from worker.pose.geometry import Geometry, plan
from worker.pose.people import People
from worker.pose.preprocess import to_input
from worker.pose.scoring import PERSON_SCORE
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import COCO_18

#: inputs uint8 (N, H, W, 3), BGR → heatmaps float32 (N, K + 1, h, w), PAFs float32 (N, 2 L, h, w)
InputsToMaps = Callable[[np.ndarray], Tuple[np.ndarray, np.ndarray]]
#: A shape → an unwritten uint8 array of it.
Room = Callable[[Tuple[int, ...]], np.ndarray]
anywhere: Room = partial(np.empty, dtype=np.uint8)


@dataclass(frozen=True)
class EstimateOptions:
    """How people are looked for in an image.

    Attributes:
        target_height: height of the net's input, in pixels.
        scales: factors on target_height; the maps of several are merged.
        merge: ``avg`` or ``max``.
        flip: also look at the mirrored image, and average.
        max_width: cap on the width of the net's input, in pixels.
        max_people: keep only the best-scored.
        min_score: leave out people scored lower; below PERSON_SCORE, fragments of people are given too.
        keep_maps: whether the estimate carries the maps that it was read from.
    """

    target_height: int = 368
    scales: Tuple[float, ...] = (1.0,)
    merge: str = "avg"
    flip: bool = False
    max_width: Optional[int] = None
    max_people: Optional[int] = None
    min_score: float = PERSON_SCORE
    keep_maps: bool = False


@dataclass(frozen=True)
class MergedMaps:
    """The maps of one image, merged over scales and the mirrored image, on the grid of the first scale.

    Attributes:
        heatmaps: float32 (K + 1, h, w): one for each keypoint, and the background.
        pafs: float32 (2 L, h, w): x and y of each limb's part affinity field.
        geometry: how the maps' cells lie in the image.
        count: scales that were merged.
    """

    heatmaps: np.ndarray
    pafs: np.ndarray
    geometry: Geometry
    count: int = 1

    @classmethod
    def of(
        cls, before: Optional[MergedMaps], maps: Tuple[np.ndarray, np.ndarray], geometry: Geometry, how: str
    ) -> MergedMaps:
        """`before`, if there is one, merged with the `maps` of one more scale; `how` is ``avg`` or ``max``."""
        if before is None:
            return cls(maps[0], maps[1], geometry)
        heatmaps, pafs = (
            _join(old, _regrid(new, geometry, before.geometry, old.shape), before.count, how)
            for old, new in zip((before.heatmaps, before.pafs), maps)
        )
        return cls(heatmaps, pafs, before.geometry, before.count + 1)


@dataclass(frozen=True)
class Estimate:
    """The people in one image, milliseconds by stage, and what is worth knowing of how they were found."""

    people: People
    skeleton: Skeleton
    timings_ms: Dict[str, float]
    warnings: Tuple[str, ...]
    maps: Optional[MergedMaps] = None


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
    """

    net: InputsToMaps
    stride: int = 8
    pad_value: int = 0
    offset: Tuple[float, float] = (0.0, 0.0)
    skeleton: Skeleton = COCO_18
    room: Room = anywhere

    def estimate(self, images: Sequence[np.ndarray], options: EstimateOptions, reduced: int = 1) -> List[Estimate]:
        """Find the people in each image; images of equal input size share one pass of the net.

        Args:
            images: uint8 (H, W, 3), BGR, of any sizes.
            reduced: how many times larger their sources are, in whose pixels people are given.

        Raises:
            ValueError: an image has another shape or type.
        """
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
                raise ValueError(f"expected an image uint8 (H,W,3), got {image.dtype} {image.shape}")
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
        return [
            self._decode(merge, options, preprocess_ms[i], net_ms[i])
            for i, merge in enumerate(merged)
            if merge is not None
        ]

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
                _average_mirrored(heatmaps[i], pafs[i], other[0][i], other[1][i], at, self.skeleton)
        return list(zip(heatmaps, pafs))

    def _decode(self, merge: MergedMaps, options: EstimateOptions, preprocess_ms: float, net_ms: float) -> Estimate:
        start = time.perf_counter()
        people, warnings = decode(
            merge.heatmaps, merge.pafs, merge.geometry, self.skeleton, min_score=options.min_score
        )
        people = people.best(options.max_people)
        associate_ms = (time.perf_counter() - start) * 1000
        timings = {"preprocess": preprocess_ms, "net": net_ms, "associate": associate_ms}
        return Estimate(people, self.skeleton, timings, warnings, merge if options.keep_maps else None)


def _join(old: np.ndarray, new: np.ndarray, count: int, how: str) -> np.ndarray:
    """The running average, or of each value the one that is farther from 0."""
    if how == "max":
        return np.where(np.abs(new) > np.abs(old), new, old)
    return (old * count + new) / np.float32(count + 1)


def _regrid(maps: np.ndarray, source: Geometry, target: Geometry, shape: Tuple[int, ...]) -> np.ndarray:
    """Maps (c, h, w) of `source` resampled (bicubic) onto the grid of `target`."""
    ratio_x, ratio_y = source.map_width / target.map_width, source.map_height / target.map_height
    # The net's error is as many cells in either.
    error_x, error_y = source.offset[0] / source.stride, source.offset[1] / source.stride
    columns = ((np.arange(shape[2]) - error_x + 0.5) * ratio_x - 0.5 + error_x).astype(np.float32)
    rows = ((np.arange(shape[1]) - error_y + 0.5) * ratio_y - 0.5 + error_y).astype(np.float32)
    at_x, at_y = np.meshgrid(columns, rows)
    return np.stack([cv2.remap(one, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for one in maps])


def _average_mirrored(
    heatmaps: np.ndarray,
    pafs: np.ndarray,
    other_heatmaps: np.ndarray,
    other_pafs: np.ndarray,
    geometry: Geometry,
    skeleton: Skeleton,
) -> None:
    """Average maps with those of the mirrored image, in place: left becomes right, and x components change sign."""
    # The mirror axis is the image's middle, which need not be between two cells; the net errs to the right in both.
    error = geometry.offset[0] / geometry.stride
    columns = (geometry.map_width - 1 - np.arange(heatmaps.shape[2]) + 2 * error).astype(np.float32)
    rows = np.arange(heatmaps.shape[1], dtype=np.float32)
    at_x, at_y = np.meshgrid(columns, rows)

    def back(one: np.ndarray) -> np.ndarray:
        return cv2.remap(one, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    for part, source in enumerate([*skeleton.mirrored, len(skeleton.mirrored)]):  # the background comes last
        heatmaps[part] = (heatmaps[part] + back(other_heatmaps[source])) / 2
    for channel, (source, sign) in skeleton.mirrored_fields.items():
        pafs[channel] = (pafs[channel] - sign * back(other_pafs[source])) / 2
        pafs[channel + 1] = (pafs[channel + 1] + sign * back(other_pafs[source + 1])) / 2


def _by_shape(geometries: Sequence[Geometry]) -> List[List[int]]:
    groups: Dict[Tuple[int, int], List[int]] = {}
    for i, geometry in enumerate(geometries):
        groups.setdefault((geometry.padded_height, geometry.padded_width), []).append(i)
    return list(groups.values())
