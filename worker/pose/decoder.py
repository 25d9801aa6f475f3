"""Maps → people."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

from worker.pose.association import associate
from worker.pose.geometry import Geometry
from worker.pose.peaks import MAX_PEAKS, THRESHOLD, find_peaks, interpolation
from worker.pose.people import People
from worker.pose.skeleton import COCO_18, Skeleton


def decode(
    heatmaps: np.ndarray, pafs: np.ndarray, geometry: Geometry, skeleton: Skeleton = COCO_18
) -> Tuple[People, Tuple[str, ...]]:
    """Find the people in one image's maps.

    Args:
        heatmaps: float32 (19, h, w), one for each keypoint and one for the background, which is not looked at.
        pafs: float32 (38, h, w).
        geometry: the image's way into the net.

    Returns:
        The people, best first, and warnings about the maps.

    Raises:
        ValueError: the maps' shapes do not fit.
    """
    parts, fields = len(skeleton.keypoints), int(skeleton.limb_table[:, 2].max()) + 2
    fit = heatmaps.ndim == pafs.ndim == 3 and len(heatmaps) >= parts and len(pafs) >= fields
    if not fit or heatmaps.shape[1:] != pafs.shape[1:] or 0 in heatmaps.shape:
        raise ValueError(f"expected maps ({parts + 1},h,w) and ({fields},h,w), got {heatmaps.shape} and {pafs.shape}")
    warnings: List[str] = []
    heatmaps = _finite(heatmaps[:parts], warnings, "heatmaps")
    pafs = _finite(pafs, warnings, "part affinity fields")
    rows = min(heatmaps.shape[1], max(1, int(np.ceil(geometry.map_height))))
    columns = min(heatmaps.shape[2], max(1, int(np.ceil(geometry.map_width))))
    peaks, counts, dropped = find_peaks(heatmaps, rows, columns, THRESHOLD, MAX_PEAKS, *interpolation())
    if dropped:
        warnings.append(f"{dropped} peaks beyond {MAX_PEAKS} of a keypoint were dropped; people may be missing")
    joints, scores = associate(peaks, counts, pafs, skeleton.limb_table, geometry.map_height)
    keypoints = np.concatenate([geometry.to_source(joints[..., :2]), np.minimum(joints[..., 2:], 1.0)], axis=-1)
    return People(keypoints.astype(np.float32), np.minimum(scores, 1.0)), tuple(warnings)


def _finite(maps: np.ndarray, warnings: List[str], name: str) -> np.ndarray:
    """The maps as float32 without NaN or infinity, which no trained net gives."""
    # A read-only array would be another type to the compiler, and compiled for anew.
    maps = np.require(maps, np.float32, ("C", "W"))
    if not np.isfinite(maps.sum(dtype=np.float64)):
        warnings.append(f"the {name} hold values that are not finite; they count as 0")
        maps = np.where(np.isfinite(maps), maps, np.float32(0))
    return maps
