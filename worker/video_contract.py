"""The contract of a film: what a message of ``pose.video`` may ask for, and what its result says; see docs/message.md.

Places, options, webhooks and ids are those of images, see :mod:`worker.contract`. The work is cut into parts, each a
job of its own in the ledger whose id begins with the film's, as ``film/look/3``; senders neither send nor see them.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Dict, List, NamedTuple, Optional, Tuple

from pydantic import ConfigDict, Field, model_validator

from worker.contract import (
    MAX_IMAGE_CHARS,
    MAX_KEYPOINTS,
    NAME,
    SCHEMA_VERSION,
    AnyJob,
    KeypointName,
    Model,
    Options,
    Overlay,
    OverlayOptions,
    Strict,
)

#: The task's name on the queue, and that of the parts of its work, which is the workers' own.
VIDEO_TASK, PART_TASK = "pose.video", "pose.video_part"
#: What is done with each segment: its people are looked for, and then drawn.
STEPS = ("look", "draw")
_PART_ID = re.compile(rf"([^/]+)/({'|'.join(STEPS)})/(0|[1-9][0-9]{{0,6}})")


class VideoOptions(Options):
    """What a film's job may ask for: what an image's may, but its maps, and what follows."""

    every: int = Field(1, ge=1, le=1_000_000, description="Look at each n-th frame")
    start_s: Optional[float] = Field(None, ge=0, le=10**7, description="Seconds from the first frame; null: from there")
    end_s: Optional[float] = Field(None, gt=0, le=10**7, description="As start_s, exclusive; null: to the end")
    max_frames: Optional[int] = Field(None, ge=1, le=10**7, description="Look at so many frames at the most")
    track: bool = Field(True, description="Whether a person has the same id in all frames")
    smooth: Optional[float] = Field(
        None,
        gt=0,
        le=100,
        description="Smooth the joints' ways, and how much: the cutoff in Hz; null: not. Needs track",
    )

    @model_validator(mode="after")
    def _fit_a_film(self) -> VideoOptions:
        if self.maps:
            raise ValueError("maps: are kept of images, not of films")
        if isinstance(self.overlay, OverlayOptions) and self.overlay.background == "transparent":
            raise ValueError("overlay: a film cannot be transparent; take black")
        if self.smooth is not None and not self.track:
            raise ValueError("smooth: needs track, which says whose joints they are")
        if self.start_s is not None and self.end_s is not None and self.start_s >= self.end_s:
            raise ValueError("start_s: must be before end_s")
        return self

    @property
    def overlay_options(self) -> Optional[OverlayOptions]:
        """How to draw, or None where no film is wanted; if nothing is said of it, each person has a colour."""
        return OverlayOptions(colors="people") if self.overlay is True else super().overlay_options


class VideoJob(AnyJob):
    """The keyword arguments of ``pose.video``."""

    PLACE: ClassVar[str] = "video"

    video: str = Field(
        min_length=1,
        max_length=MAX_IMAGE_CHARS,
        description="Path, or file://, s3:// or https:// URL, of the film; or upload: and the SHA-256 of one that lies "
        "beside the job",
    )
    options: VideoOptions = VideoOptions()


class Part(NamedTuple):
    """What a part's id says."""

    film: str
    step: str
    number: int

    @property
    def id(self) -> str:
        """The part's id."""
        return f"{self.film}/{self.step}/{self.number}"


def part_of(job_id: Any) -> Optional[Part]:
    """What `job_id` says, if it is a part's."""
    found = isinstance(job_id, str) and _PART_ID.fullmatch(job_id)
    return Part(found[1], found[2], int(found[3])) if found else None


class Video(Strict):
    """The film as it was looked at: upright, as it says, and then turned by the job's rotate."""

    path: str
    width: int = Field(ge=1, lt=2**31)
    height: int = Field(ge=1, lt=2**31)
    format: str
    codec: str
    frames: int = Field(ge=0, description="Frames in the file")
    duration_s: float = Field(ge=0)
    fps: float = Field(ge=0, description="Frames a second, on the average")


class Track(Strict):
    """Someone who was followed."""

    id: int = Field(ge=0)
    first_frame: int = Field(ge=0)
    last_frame: int = Field(ge=0)
    frames: int = Field(ge=1, description="In so many frames they were found")
    spans_s: List[Tuple[float, float]] = Field(description="From when until when they were in sight, without long gaps")


class VideoResult(Strict):
    """What a film's success carries. The keypoints are in an artefact, a line of JSON a frame, gzip."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)

    schema_version: int = Field(SCHEMA_VERSION, alias="schema")
    job_id: str
    video: Video
    model: Model
    skeleton: str = Field("coco_18", pattern=NAME, description="What of a person the net finds")
    keypoint_names: Tuple[KeypointName, ...] = Field(max_length=MAX_KEYPOINTS, description="In the order of keypoints")
    limbs: Tuple[Tuple[int, int], ...] = Field(max_length=MAX_KEYPOINTS, description="Which keypoints a line joins")
    frames: int = Field(ge=0, description="Frames that were looked at")
    missing: int = Field(0, ge=0, description="Frames that should have been, but cannot be decoded")
    with_people: int = Field(ge=0, description="Frames in which somebody was found")
    most_people: int = Field(ge=0, description="Most people in a frame")
    tracks: List[Track] = Field(description="Who was followed, by id; none without track")
    segments: int = Field(ge=1)
    keypoints: Overlay
    overlay: Optional[Overlay] = Field(None, description="The drawn film")
    warnings: Tuple[str, ...] = ()
    seconds: float = Field(description="From submission to the end")
    worker: str = Field(description="Who put the film together")
    device: str
    attempt: int

    @model_validator(mode="after")
    def _fits_together(self) -> VideoResult:
        joints = len(self.keypoint_names)
        if len(set(self.keypoint_names)) < joints:
            raise ValueError("keypoint_names: two are the same")
        if any(start == end or not 0 <= min(start, end) <= max(start, end) < joints for start, end in self.limbs):
            raise ValueError(f"limbs: each must have two ends from 0 to {joints - 1}")
        return self

    def to_message(self) -> Dict[str, Any]:
        """This result as a JSON object."""
        return self.model_dump(mode="json", by_alias=True)


class Progress(Strict):
    """How far a film is.

    Attributes:
        phase: ``waiting``, ``plan``, ``look``, ``join``, ``draw``, ``put together`` or ``ended``.
        done, segments: of the phase's segments, how many are done; 0 of 0 where the phase has none.
        frames: frames that are looked at or drawn in all, as planned.
        frames_per_s: of this phase so far; None: not known yet.
        eta_s: seconds that are left of this phase, if that is known.
    """

    phase: str
    done: int = 0
    segments: int = 0
    frames: int = 0
    frames_per_s: Optional[float] = None
    eta_s: Optional[float] = None


__all__ = [
    "PART_TASK",
    "STEPS",
    "VIDEO_TASK",
    "Part",
    "Progress",
    "Track",
    "Video",
    "VideoJob",
    "VideoOptions",
    "VideoResult",
    "part_of",
]
