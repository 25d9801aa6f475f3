"""The contract: what a message may ask for, and what a result says, as documented in docs/message.md.

The message is the Celery task ``pose.estimate`` with the keyword arguments ``image``, ``options``, ``webhook`` and
``callback``, of which only the first must be there. docs/contract.schema.json is generated from it.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, Dict, List, Literal, Mapping, Optional, Sequence, Tuple, Type, TypeVar, Union
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_serializer, model_validator
from typing_extensions import Annotated

from worker.errors import InvalidRequest, reason_in

#: Version of the result; raised when a field changes its meaning or disappears.
SCHEMA_VERSION = 1
#: The task's name on the queue.
TASK = "pose.estimate"
#: Longest image path or URL that a message may carry, in characters.
MAX_IMAGE_CHARS = 4096
#: What the name of an image begins with that is in the message, or lies beside the job; and how long the first may be:
#: POSE_MAX_MESSAGE_BYTES is less.
DATA, UPLOAD = "data:", "upload:"
MAX_DATA_CHARS = 1 << 24

#: Most pixels of the net's inputs, all scales and the mirrored image together, as they would be of a square image:
#: twice those of target_height 2048, fifteen times those of `accurate` with flip. It takes 12 s on two CPU cores.
MAX_OPTIONS_PIXELS = 10_000_000

#: What a skeleton and its keypoints may be called: it becomes part of pages and of tables.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
KeypointName = Annotated[str, Field(pattern=NAME)]

#: What a job's id may look like: it becomes part of Redis keys and of file names.
_JOB_ID = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_@.:-]{0,199}")

#: What a queue may be called that a message names; and what begins the keys that Celery keeps beside its queues.
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_CELERYS_KEYS = ("unacked", "_kombu", "celery-task-meta", "celery-taskset-meta", "celeryev")

#: Most keypoints of a person.
MAX_KEYPOINTS = 256
Keypoint = Optional[Tuple[float, float, float]]
Hand = Annotated[Tuple[Keypoint, ...], Field(min_length=21, max_length=21)]
Face = Annotated[Tuple[Keypoint, ...], Field(min_length=70, max_length=70)]

#: What the presets stand for; docs/accuracy.md has their accuracy and time. `balanced` takes the time of a job that
#: names no options.
PRESETS: Dict[str, Dict[str, Any]] = {
    "fast": {"target_height": 224, "refine": "once"},
    "balanced": {"target_height": 288, "refine": "once"},
    "accurate": {"target_height": 320, "scales": (1.0, 1.5), "refine": "twice"},
}


class Strict(BaseModel):
    """Knows all its fields, and does not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OverlayOptions(Strict):
    """How the picture is drawn."""

    background: Literal["image", "black", "transparent"] = Field(
        "image", description="On the image, on black, or alone as a transparent PNG"
    )
    alpha: float = Field(0.6, ge=0, le=1, description="Opacity of limbs and joints")
    thickness: float = Field(1.0, gt=0, le=10, description="Factor on the line thickness that fits the image's size")
    render_threshold: float = Field(0.05, ge=0, le=1, description="Joints of lower confidence are not drawn")
    colors: str = Field(
        "keypoints",
        max_length=400,
        pattern=r"^(keypoints|people|#[0-9a-fA-F]{6}(,#[0-9a-fA-F]{6})*)$",
        description="By keypoint, one for each person (people), or those that people take in turn: #ff0000,#00ff00",
    )
    quality: int = Field(90, ge=1, le=100, description="JPEG quality")


class Options(Strict):
    """What a job may ask for; everything has a default."""

    model: Optional[str] = Field(None, max_length=100, description="The net's name; null: the one the worker serves")
    preset: Optional[Literal["fast", "balanced", "accurate"]] = Field(
        None, description="Options by name; those that are given beside it override it"
    )
    target_height: int = Field(368, ge=64, le=2048, description="Height of the net's input, in pixels")
    max_width: Optional[int] = Field(
        None, ge=64, le=8192, description="Cap on the net input's width, in pixels, for panoramas"
    )
    scales: Tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (1.0,), min_length=1, max_length=8, description="Factors on target_height; maps of several are merged"
    )
    merge: Literal["avg", "max"] = Field("avg", description="How the maps of several scales are merged")
    flip: bool = Field(False, description="Also run the mirrored image and average")
    refine: Literal["off", "once", "twice"] = Field(
        "off", description="Cut out people who are small, enlarge them and look again; twice: at two scales"
    )
    rotate: Literal[0, 90, 180, 270] = Field(
        0, description="Degrees clockwise by which the image is turned first, after EXIF orientation"
    )
    parts: Tuple[Literal["body", "hands", "face"], ...] = Field(
        ("body",), max_length=3, description="What is looked for; hands and faces by the body that they belong to"
    )
    max_people: Optional[int] = Field(None, ge=1, le=1000, description="Keep only the best-scored people")
    min_score: float = Field(
        0.1, ge=0, le=1, description="Leave out people scored lower; below 0.1 are fragments of people"
    )
    overlay: Union[bool, OverlayOptions] = Field(True, description="Whether and how a picture is drawn")
    maps: bool = Field(
        False, description="Also keep the net's heatmaps and part affinity fields (a NumPy archive, float16)"
    )

    @field_validator("parts")
    @classmethod
    def _have_a_body(cls, parts: Tuple[str, ...]) -> Tuple[str, ...]:
        if "body" not in parts:
            raise ValueError("must have body, by which the others are found")
        return parts

    @model_validator(mode="after")
    def _are_bounded(self) -> Options:
        chosen = self.effective()
        side = min(chosen.target_height, chosen.max_width or chosen.target_height)
        pixels = sum((side * scale) ** 2 for scale in chosen.scales) * (2 if chosen.flip else 1)
        if pixels > MAX_OPTIONS_PIXELS:
            raise ValueError(
                f"target_height, scales and flip together ask the net for {pixels:.0f} pixels of a square image, more "
                f"than {MAX_OPTIONS_PIXELS}; lower one of them"
            )
        return self

    def effective(self) -> Options:
        """These options, with the preset's values for those that were not given."""
        preset = PRESETS[self.preset] if self.preset else {}
        return self.model_copy(update={k: v for k, v in preset.items() if k not in self.model_fields_set})

    @property
    def overlay_options(self) -> Optional[OverlayOptions]:
        """How to draw, or None where no picture is wanted."""
        if isinstance(self.overlay, OverlayOptions):
            return self.overlay
        return OverlayOptions() if self.overlay else None


def queue_fault(name: str) -> Optional[str]:
    """Why nothing may be sent to the queue called `name`, if so: what was put there would end all consuming."""
    if name.startswith(_CELERYS_KEYS) or name.endswith(".pidbox"):
        return "that is no queue, but a key of Celery's own"
    return None if _QUEUE.fullmatch(name) else "must be letters, digits and _ . -"


class Callback(Strict):
    """A Celery task that is sent when the job has ended; its one argument is what a webhook gets."""

    task: str = Field(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", description="Its name")
    queue: str = Field("celery", max_length=200, pattern=r"^[A-Za-z0-9_.-]+$", description="The queue it is sent to")

    @field_validator("task")
    @classmethod
    def _is_not_ours(cls, name: str) -> str:
        if name.startswith(("pose.", "celery.")):
            raise ValueError("names that begin with pose. or celery. are not called")
        return name

    @field_validator("queue")
    @classmethod
    def _is_a_queue(cls, name: str) -> str:
        fault = queue_fault(name)
        if fault:
            raise ValueError(fault)
        return name


class AnyJob(Strict):
    """The keyword arguments that all tasks have."""

    #: The argument that names what is looked at.
    PLACE: ClassVar[str]

    options: Options = Options()
    webhook: Optional[str] = Field(
        None, max_length=2048, pattern=r"^https?://[!-~]+$", description="URL that is called when the job has ended"
    )
    callback: Optional[Callback] = Field(None, description="Task that is sent when the job has ended")

    @field_validator("webhook")
    @classmethod
    def _names_a_host(cls, url: Optional[str]) -> Optional[str]:
        try:
            parts = urlsplit(url or "http://host")
            found = bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not close, a port that is none
            found = False
        if not found:
            raise ValueError("is no URL of a host")
        return url

    @property
    def path(self) -> str:
        """What is looked at."""
        return str(getattr(self, self.PLACE))


class Job(AnyJob):
    """The keyword arguments of ``pose.estimate``."""

    PLACE: ClassVar[str] = "image"

    image: str = Field(
        min_length=1,
        max_length=MAX_DATA_CHARS,
        description="Path, or file://, s3:// or https:// URL, of the image, of up to 4096 characters; or the image "
        "itself, data:image/jpeg;base64,…; or upload: and the SHA-256 of one that lies beside the job",
    )
    options: Options = Options()


#: The arguments of one of the tasks.
Kind = TypeVar("Kind", bound=AnyJob)


class Image(Strict):
    """The image as it was looked at: after EXIF orientation, and after the job's rotate."""

    path: str
    width: int = Field(ge=1, lt=2**31)
    height: int = Field(ge=1, lt=2**31)
    format: str
    frames: int = Field(
        1, description="Frames or pages in the file, of which only the first is used; pages are counted up to 1000"
    )


class Model(Strict):
    """The net that looked at it."""

    name: str
    sha256: str = Field(description="SHA-256 of the net's weights, init_net.pb")


class Person(Strict):
    """One person: a keypoint for each name of the result's; null where a joint was not found.

    Hands and face are there if the job asks for them, in the order of OpenPose.
    """

    score: float
    keypoints: Tuple[Keypoint, ...] = Field(
        min_length=1, max_length=MAX_KEYPOINTS, description="x and y in source pixels, confidence; or null"
    )
    hand_left: Optional[Hand] = Field(None, description="As keypoints: the wrist, then each finger to its tip")
    hand_right: Optional[Hand] = Field(None, description="As hand_left")
    face: Optional[Face] = Field(None, description="As keypoints: jaw, brows, nose, eyes, lips, pupils")

    @model_serializer(mode="wrap")
    def _without_what_was_not_asked_for(self, write: Any) -> Dict[str, Any]:
        kept: Dict[str, Any] = write(self)
        return {name: value for name, value in kept.items() if value is not None}


class Overlay(Strict):
    """Where the picture, or the maps, are, until when, and how to know that they are whole."""

    url: str
    media_type: str
    bytes: int = Field(ge=0)
    sha256: str
    expires_at: Optional[float] = Field(description="Unix time in seconds; null: kept until someone deletes it")


class Result(Strict):
    """What a job's success carries."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)

    schema_version: int = Field(SCHEMA_VERSION, alias="schema")
    job_id: str
    image: Image
    model: Model
    skeleton: str = Field("coco_18", pattern=NAME, description="What of a person the net finds")
    keypoint_names: Tuple[KeypointName, ...] = Field(
        (), max_length=MAX_KEYPOINTS, description="In the order of each person's keypoints; none: those of coco_18"
    )
    limbs: Tuple[Tuple[int, int], ...] = Field(
        (), max_length=MAX_KEYPOINTS, description="Which keypoints a line joins in a picture, counted from 0"
    )
    people: List[Person]
    overlay: Optional[Overlay] = None
    maps: Optional[Overlay] = None
    warnings: List[str] = []
    timings_ms: Dict[str, float] = Field(description="Milliseconds by stage")
    worker: str
    device: str
    attempt: int

    @model_validator(mode="after")
    def _fits_together(self) -> Result:
        joints = len(self.keypoint_names) or 18  # which a result had before it said so
        if any(len(person.keypoints) != joints for person in self.people):
            raise ValueError(f"people: each must have {joints} keypoints")
        if len(set(self.keypoint_names)) < len(self.keypoint_names):
            raise ValueError("keypoint_names: two are the same")
        if any(start == end or not 0 <= min(start, end) <= max(start, end) < joints for start, end in self.limbs):
            raise ValueError(f"limbs: each must have two ends from 0 to {joints - 1}")
        return self

    def to_message(self) -> Dict[str, Any]:
        """This result as a JSON object."""
        return self.model_dump(mode="json", by_alias=True)


def without_query(path: str) -> str:
    """`path` as results, logs and errors have it: of a URL without its query and its user, which may be secret;
    of an image itself without that."""
    if path.startswith(DATA):
        return f"{path.partition(',')[0]:.100},…"
    scheme, _, rest = path.partition("://")
    if not rest or scheme == "file" or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return path
    if scheme != "s3":  # whose keys may have such characters
        rest = rest.partition("#")[0].partition("?")[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def id_fault(job_id: Any) -> Optional[str]:
    """What is wrong with a job's id, if something is."""
    if isinstance(job_id, str) and _JOB_ID.fullmatch(job_id):
        return None
    return f"job_id: must be 1 to 200 letters, digits and @ _ . : - (got {_shown(job_id)})"


def parse_message(args: Sequence[Any], kwargs: Mapping[str, Any], job_id: str = "any", kind: Type[Kind] = Job) -> Kind:  # type: ignore[assignment]
    """Check a message's arguments, and its id.

    Args:
        args: those by position that were not given their names, see worker.broker.protocol: too many, or some that are
            there by keyword, too.
        kind: the task's arguments.

    Raises:
        InvalidRequest: as :func:`parse_job`.
    """
    wrong_id, by_position = id_fault(job_id), (kind.PLACE, "options")
    faults = [wrong_id] if wrong_id else []
    faults += [f"{name} is not an argument" for name in kwargs if name not in kind.model_fields]
    if len(args) > len(by_position):
        faults.append(f"{len(args)} arguments stand by position, where only {' and '.join(by_position)} may")
    elif args:
        faults.append(f"{' and '.join(by_position[: len(args)])}: given by position and by keyword; leave one out")
    ends = {name: kwargs.get(name) for name in ("webhook", "callback")}
    return parse_job(kwargs.get(kind.PLACE), kwargs.get("options"), faults, kind=kind, **ends)


def parse_job(
    path: Any,
    options: Any,
    faults: Sequence[str] = (),
    *,
    kind: Type[Kind] = Job,  # type: ignore[assignment]
    webhook: Any = None,
    callback: Any = None,
) -> Kind:
    """Check a job's arguments; types are JSON's own and are not converted.

    Args:
        path: what is looked at.
        faults: what is already known to be wrong with the message.
        kind: the task's arguments.

    Raises:
        InvalidRequest: the message names each field that is unknown, of the wrong type or out of range.
    """
    faults = list(faults)
    most = MAX_DATA_CHARS if isinstance(path, str) and path.startswith(DATA) else MAX_IMAGE_CHARS
    if not isinstance(path, str) or not 0 < len(path) <= most:
        faults.append(f"{kind.PLACE}: must be a string of 1 to {MAX_IMAGE_CHARS} characters (got {_shown(path)})")
    # A path may hold undecodable bytes as lone surrogates, which pydantic's own strings do not admit.
    rest = {kind.PLACE: "-", "options": {} if options is None else options, "webhook": webhook, "callback": callback}
    try:
        parsed = kind.model_validate_json(json.dumps(rest), strict=True)
    except ValidationError as exc:
        faults += [_fault(error) for error in exc.errors(include_url=False) if _is_meant(error)][:5]
    except (TypeError, ValueError, RecursionError) as exc:
        faults.append(f"options: not JSON ({exc})")
    if faults:
        raise InvalidRequest(f"The job for {_shown(path)} was refused: {'; '.join(faults)}; see docs/message.md.")
    return parsed.model_copy(update={kind.PLACE: path})


def _is_meant(error: Any) -> bool:
    """Of the two types that `overlay` may have, keep the faults of the one that was meant."""
    if "bool" in error["loc"]:
        return not isinstance(error["input"], dict)
    return error["type"] != "model_type" or "OverlayOptions" not in error["loc"]


def _fault(error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"] if part not in ("bool", "OverlayOptions"))
    if error["type"] == "extra_forbidden":
        return f"{field} is not an option"
    if error["type"] == "json_invalid":  # Python's JSON allows text that is not Unicode
        return "options, webhook, callback: must hold no lone surrogates"
    return f"{field}: {reason_in(error)} (got {_shown(error['input'])})"


def _shown(value: Any) -> str:
    text = ascii(without_query(value) if isinstance(value, str) else value)
    return text if len(text) <= 200 else f"{text[:200]}…"
