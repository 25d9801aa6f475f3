"""Maps of one image from several looks at it, as one: other scales, the mirrored image, a crop and its whole image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Sequence, Tuple

import cv2
import numpy as np

from worker.pose.geometry import Geometry
from worker.pose.skeleton import Skeleton


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

    def with_part_of(self, whole: MergedMaps, left: int, top: int, how: str) -> MergedMaps:
        """These maps of a crop merged with what those of its `whole` image have there; the crop begins at the image's
        pixel `left`, `top`."""
        ratio = whole.geometry.scale / self.geometry.scale
        shift = left * whole.geometry.scale / whole.geometry.stride, top * whole.geometry.scale / whole.geometry.stride
        heatmaps, pafs = (
            _join(new, _resample(old, (ratio, ratio), shift, _error(whole.geometry), new.shape), self.count, how)
            for new, old in ((self.heatmaps, whole.heatmaps), (self.pafs, whole.pafs))
        )
        return replace(self, heatmaps=heatmaps, pafs=pafs, count=self.count + 1)


def _join(old: np.ndarray, new: np.ndarray, count: int, how: str) -> np.ndarray:
    """The running average, or of each value the one that is farther from 0."""
    if how == "max":
        return np.where(np.abs(new) > np.abs(old), new, old)
    return (old * count + new) / np.float32(count + 1)


def _regrid(maps: np.ndarray, source: Geometry, target: Geometry, shape: Tuple[int, ...]) -> np.ndarray:
    """Maps (c, h, w) of `source` resampled onto the grid of `target`."""
    ratio = source.map_width / target.map_width, source.map_height / target.map_height
    return _resample(maps, ratio, (0.0, 0.0), _error(source), shape)


def _error(geometry: Geometry) -> Tuple[float, float]:
    """The net's error in cells, which is the same at all scales."""
    return geometry.offset[0] / geometry.stride, geometry.offset[1] / geometry.stride


def _resample(
    maps: np.ndarray, ratio: Sequence[float], shift: Sequence[float], error: Sequence[float], shape: Tuple[int, ...]
) -> np.ndarray:
    """Maps (c, h, w), bicubic, at cells that are `ratio` of theirs large and begin at `shift`; x comes first."""

    def cells(axis: int) -> np.ndarray:
        at = np.arange(shape[2 - axis], dtype=float) - error[axis] + 0.5
        return np.asarray(at * ratio[axis] - 0.5 + error[axis] + shift[axis], np.float32)

    at_x, at_y = np.meshgrid(cells(0), cells(1))
    return np.stack([cv2.remap(one, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for one in maps])


def average_mirrored(
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
