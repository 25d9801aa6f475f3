"""Maps → people."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

from worker.pose.association import associate
from worker.pose.geometry import Geometry
from worker.pose.peaks import MAX_PEAKS, WEAK_THRESHOLD, find_peaks, interpolation
from worker.pose.people import People
from worker.pose.scoring import PERSON_SCORE, score_people
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import COCO_18


def decode(
    heatmaps: np.ndarray,
    pafs: np.ndarray,
    geometry: Geometry,
    skeleton: Skeleton = COCO_18,
    *,
    min_score: float = PERSON_SCORE,
) -> Tuple[People, Tuple[str, ...]]:
    """Find the people in one image's maps.

    Args:
        heatmaps: float32 (K + 1, h, w), one for each keypoint and one for the background, which is not used.
        pafs: float32 (2 L, h, w).
        geometry: the image's way into the net.
        skeleton: what the net finds; it must have limbs with PAFs.
        min_score: leave out people scored lower; below PERSON_SCORE, fragments of people are given too.

    Returns:
        The people, best first, and warnings about the maps.

    Raises:
        ValueError: the maps' shapes do not fit.
    """
    parts, fields = len(skeleton.keypoints), skeleton.paf_channels
    fit = heatmaps.ndim == pafs.ndim == 3 and len(heatmaps) >= parts and len(pafs) >= fields
    if not fit or heatmaps.shape[1:] != pafs.shape[1:] or 0 in heatmaps.shape:
        raise ValueError(f"expected maps ({parts + 1},h,w) and ({fields},h,w), got {heatmaps.shape} and {pafs.shape}")
    warnings: List[str] = []
    heatmaps = _finite(heatmaps[:parts], warnings, "heatmaps")
    pafs = _finite(pafs, warnings, "part affinity fields")
    rows = min(heatmaps.shape[1], max(1, int(np.ceil(geometry.map_height))))
    columns = min(heatmaps.shape[2], max(1, int(np.ceil(geometry.map_width))))
    peaks, counts, dropped, level = find_peaks(heatmaps, rows, columns, WEAK_THRESHOLD, MAX_PEAKS, *interpolation())
    if dropped:
        warnings.append(f"{dropped} peaks beyond {MAX_PEAKS} of a keypoint were dropped; people may be missing")
    if level > MAX_PEAKS:
        warnings.append(f"a heatmap is level over {level} cells, which count as one peak; people may be missing")
    joints, whole = associate(peaks, counts, pafs, skeleton, geometry.map_height)
    if len(joints) == 0:
        return People.nobody(parts), tuple(warnings)
    scores = score_people(joints, whole, np.asarray(skeleton.sigmas))
    kept = _ranked(joints, scores)
    kept = kept[scores[kept] >= np.float32(min_score)]
    joints, scores = joints[kept], scores[kept]
    joints[..., :2] = geometry.to_source(joints[..., :2])
    joints[..., 2] = np.minimum(joints[..., 2], 1.0)
    return People(joints, scores), tuple(warnings)


def warm() -> None:
    """Compile everything, or load what was compiled before; else the first call of :func:`decode` takes seconds."""
    heatmaps = np.zeros((19, 8, 8), np.float32)
    heatmaps[0, 4, 4] = 1.0  # else there is nobody, and nothing to join
    decode(heatmaps, np.zeros((38, 8, 8), np.float32), Geometry(64, 64, 1.0, 8))


def warm_peaks() -> None:
    """Compile what finds peaks: one half of all."""
    find_peaks(np.zeros((18, 8, 8), np.float32), 8, 8, WEAK_THRESHOLD, MAX_PEAKS, *interpolation())


def warm_association() -> None:
    """Compile what joins them: the other half."""
    peaks, counts = np.zeros((18, MAX_PEAKS, 3), np.float32), np.ones(18, np.int32)
    associate(peaks, counts, np.zeros((38, 8, 8), np.float32), COCO_18, 8.0)


def _ranked(joints: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The order of people: by score; of equals, the one higher up, then the one farther left."""
    top_left = np.where(joints[..., 2:] > 0, joints[..., :2], np.inf).min(1)
    return np.lexsort((top_left[:, 0], top_left[:, 1], -scores))


def _finite(maps: np.ndarray, warnings: List[str], name: str) -> np.ndarray:
    """The maps as float32 without NaN or infinity, which no trained net gives."""
    # A read-only array would be another type to the compiler, and compiled for anew.
    maps = np.require(maps, np.float32, ("C", "W"))
    if not np.isfinite(maps).all():
        warnings.append(f"the {name} hold values that are not finite; they count as 0")
        maps = np.where(np.isfinite(maps), maps, np.float32(0))
    return maps
