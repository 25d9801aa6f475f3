"""Every POSE_* variable: its type, unit, default and meaning. Read once, when the worker starts.

``POSE_<NAME>_FILE`` names a file that holds the value, as secrets are handed to containers and services.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Tuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from typing_extensions import Annotated

from worker.errors import SettingsError, reason_in
from worker.servers import DEFAULT_PREFIX, DEFAULT_URL, REDIS, celery_server, is_redis, masked

PREFIX = "POSE_"
#: Most slots of one worker: the rows of its board.
MAX_SLOTS = 128
_NAME = r"^[A-Za-z0-9_.-]+$"
_NAME_OR_NONE = r"^[A-Za-z0-9_.-]*$"
_HOST = r"^((\*\.)?[A-Za-z0-9._-]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$"
_STORE = rf"^(({'|'.join(REDIS)})://.*|file:///.+|s3://[^/].*)?$"
_SECRET = r"^(.{16,})?$"
#: What a text must be that one of these patterns does not fit.
_WANTED = {
    _NAME: "must be letters, digits, dots, dashes and underscores",
    _NAME_OR_NONE: "must be letters, digits, dots, dashes and underscores",
    _HOST: "must be the name of a host, or an address",
    _STORE: "must be redis://…, file:///folder or s3://bucket/prefix",
    _SECRET: "must have 16 characters or more",
}
#: What an older version had: a variable and its value (None: any) → why it was removed, and what to use instead.
_REMOVED: Dict[Tuple[str, Optional[str]], str] = {
    ("compile", "inductor"): "no gain was measured; set it to graph (CUDA graphs) or off",
    ("signing", None): "signed messages knew no roles and kept clients in other languages out; unset it, and protect "
    "the broker with TLS (rediss://) and Redis' ACL",
}
#: What is said where a broker is needed and none is configured.
NO_BROKER = f"POSE_BROKER_URL is not set; set it to your Redis, e.g. {DEFAULT_URL}."
#: Variables for which being set but empty is a value of its own.
_MAY_BE_EMPTY = ("callback_queues",)
#: Characters of a value that a message shows.
_MOST_SHOWN = 200
_MODELS = Path(__file__).resolve().parent.parent / "models"


def _words(value: Any) -> Any:
    """The parts of `value` between commas or blanks; a default is a tuple already."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _sizes(value: Any) -> Any:
    return tuple(tuple(size.lower().split("x")) for size in _words(value)) if isinstance(value, str) else value


def _paths(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # Not at the colons of a URL: that of its scheme, and that in front of a port.
    parts = re.split(rf"{os.pathsep}(?!//|\d+(?:/|{os.pathsep}|$))", value)
    if any(re.match(r"file:(?!///)", part) for part in parts):
        raise ValueError("a file:// URL has three slashes: file:///data/images")
    if not any(parts):
        raise ValueError("allows no image; name a folder")
    return tuple(part for part in parts if part)


Name = Annotated[str, Field(pattern=_NAME)]
Names = Annotated[Tuple[Name, ...], BeforeValidator(_words)]
Host = Annotated[str, Field(pattern=_HOST)]
Hosts = Annotated[Tuple[Host, ...], BeforeValidator(_words)]
Paths = Annotated[Tuple[str, ...], BeforeValidator(_paths)]
Sizes = Annotated[Tuple[Tuple[int, int], ...], BeforeValidator(_sizes)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


def _setting(default: Any, meaning: str, **limits: Any) -> Any:
    """A field: its default, its description for people, and what else pydantic's Field takes."""
    return Field(default, description=meaning, **limits)


class Settings(BaseModel):
    """The settings of one deployment. Each field is the variable ``POSE_<NAME>``."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    broker_url: str = _setting(
        "",
        "Where jobs come from, e.g. `redis://:password@host:6379/0`; also `rediss://`, `unix://`, "
        "`sentinel://host,host/0?master=name`, `amqp://` and `amqps://`",
        repr=False,
    )
    result_backend: str = _setting("", "URL of the Redis that holds results. Empty: the broker's", repr=False)
    overlay_store: str = _setting(
        "",
        "Where overlays are kept: `redis://…`, `file:///folder` or `s3://bucket/prefix`. Empty: in the Redis that "
        "holds results",
        repr=False,
        pattern=_STORE,
    )
    key_prefix: Name = _setting(
        DEFAULT_PREFIX,
        "First part of the names of our keys in Redis. Deployments that share a Redis need different prefixes and "
        "different queues. With any prefix but `pose`, Celery's own keys begin with it, too, except the queues",
    )
    queue: Name = _setting("pose", "The queue that clients send to and workers take jobs from")
    queues: Names = _setting((), "Queues that this worker takes jobs from, separated by commas. Empty: POSE_QUEUE")
    model: Name = _setting("mobilenet_thin", "The default net: the name of a folder in POSE_MODELS_DIR")
    models: Names = _setting((), "Other nets that a job may ask for, separated by commas")
    hand_net: str = _setting(
        "", "The net that finds hands, if a job asks for them: a folder, as POSE_MODEL", pattern=_NAME_OR_NONE
    )
    face_net: str = _setting("", "The net that finds faces, likewise", pattern=_NAME_OR_NONE)
    max_nets: int = _setting(0, "Most nets in memory; the least recently used makes room. 0: as many as fit", ge=0)
    models_dir: Path = _setting(_MODELS, "The folder that holds the nets' folders")
    engine: Literal["auto", "torch", "openvino", "caffe2", "null"] = _setting(
        "auto", "What runs the net. `auto`: torch on a GPU, OpenVINO on a CPU; `null` finds nobody"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _setting("auto", "`auto`: fp32 on a CPU, fp16 on a GPU")
    compile: Literal["off", "graph"] = _setting("graph", "`graph`: CUDA graphs for repeated input sizes (PyTorch, GPU)")
    device: str = _setting(
        "auto",
        "`cpu`, `cuda:0`, or the UUID of a GPU or MIG instance. `auto`: by the worker's name (`gpu3@host`), else a "
        "free GPU, else the CPU; `cuda`: likewise, but never the CPU",
        pattern=r"^(auto|cpu|cuda(:\d+)?|(GPU|MIG)-[0-9A-Za-z/-]+)$",
    )
    share_device: bool = _setting(False, "Whether several workers may use one GPU")
    inline: bool = _setting(False, "Run the net in the worker's only slot, without a net process")
    slots: int = _setting(0, "Jobs in work at a time. 0: cores per GPU less two, 2 on a CPU", ge=0, le=MAX_SLOTS)
    threads: int = _setting(0, "CPU threads of the net. 0: one for each core", ge=0, le=1024)
    max_batch: int = _setting(0, "Most inputs in one pass of the net. 0: 4 on a GPU, 1 on a CPU", ge=0, le=256)
    width_step: int = _setting(
        0,
        "Inputs of the net are padded to a width that is a multiple of this, in pixels, and so share a pass. 1: as "
        "they are. 0: 64 on a GPU, 1 on a CPU",
        ge=0,
        le=1024,
    )
    batch_wait_ms: float = _setting(2.0, "Longest wait for inputs to share a pass of the net, in milliseconds", ge=0)
    net_timeout_s: Seconds = _setting(30.0, "Seconds after which a silent net process is killed and started again")
    grace_s: Seconds = _setting(30.0, "Seconds that a stopping worker gives its jobs; then the queue gets them back")
    heartbeat_dir: Path = _setting(
        Path(tempfile.gettempdir()) / f"pose-worker-{os.getuid()}",
        "Folder for the workers' heartbeat files, which `python -m worker check` reads. `none`: no files",
    )
    metrics_port: int = _setting(0, "`gpu0`'s port for Prometheus; `gpu1` has the next. 0: no metrics", ge=0, le=65_535)
    metrics_bind: Host = _setting("0.0.0.0", "The address on which the metrics' ports are open")
    log: Literal["text", "json"] = _setting("text", "Log lines for people, or one JSON object a line")
    tracing: bool = _setting(False, "Whether traces go to the OpenTelemetry collector that the OTEL_* variables name")
    cpu_workers: int = _setting(1, "Workers that a fleet runs on a machine without a GPU", ge=1, le=64)
    warm_sizes: Sizes = _setting(((368, 496), (368, 656)), "Sizes of inputs, height x width, run before the first job")
    image_roots: Paths = _setting(
        (".",),
        "Folders, and URLs such as `s3://bucket/prefix` or `https://host/path`, below which images may be read; "
        "separated by `:`. Symbolic links are resolved first",
    )
    max_message_bytes: int = _setting(1 << 18, "Largest message, in bytes; others are refused", ge=1 << 12)
    max_bytes: Count = _setting(64 << 20, "Largest image file, in bytes")
    max_uploads_bytes: int = _setting(
        1 << 30, "Bytes of all images together that clients have sent with their jobs; 0: none may be sent", ge=0
    )
    max_video_bytes: Count = _setting(4 << 30, "Largest film, in bytes")
    max_video_s: Seconds = _setting(4 * 3600.0, "Longest film, in seconds")
    max_video_frames: Count = _setting(1_000_000, "Most frames of a film")
    segment_frames: int = _setting(
        60, "Frames of a film that are looked at, or drawn, as one piece of work", ge=1, le=200
    )
    max_pixels: Count = _setting(64_000_000, "Largest image, in pixels")
    max_aspect: float = _setting(100.0, "Largest ratio of an image's longer side to its shorter side", ge=1)
    max_net_pixels: Count = _setting(
        16_000_000, "Most pixels that one job may ask the net for: its inputs of all scales and the mirrored ones"
    )
    decode_limit_s: Seconds = _setting(
        10.0, "Seconds of processor time for decoding an image; then its slot is killed, and the job has failed"
    )
    max_slot_mb: int = _setting(
        1280, "Most memory of a slot, in MB; beyond, it is killed, and its job has failed. 0: any", ge=0
    )
    max_net_mb: int = _setting(
        8192,
        "Most memory of the net process, in MB; beyond, another is started, and the jobs in its batch have failed. "
        "0: any",
        ge=0,
    )
    url_timeout_s: Seconds = _setting(20.0, "Seconds for fetching an image from its URL, and for a webhook's answer")
    private_hosts: Hosts = _setting(
        (),
        "Hosts of images and webhooks that may have addresses which are not public, separated by commas; "
        "`*.example.org` stands for all hosts of a domain",
    )
    callback_queues: Names = _setting(
        ("celery",),
        "Queues to which this worker may send tasks that follow a job (`callback`, and what Celery's chains, links and "
        "chords embed), separated by commas. Set but empty: none",
    )
    webhook_secret: str = _setting(
        "",
        "Key for the signatures of webhook calls (HMAC-SHA256), 16 characters or more. Empty: no webhooks",
        repr=False,
        pattern=_SECRET,
    )
    file_grace_s: float = _setting(0.0, "Seconds after submission in which a missing file may still appear", ge=0)
    result_expires_s: Count = _setting(86_400, "Seconds for which results and overlays are kept")
    soft_time_limit_s: Seconds = _setting(
        60.0, "Seconds after which an attempt is interrupted; the job is then retried"
    )
    hard_time_limit_s: Seconds = _setting(90.0, "Seconds after which the process of an attempt is killed")
    max_attempts: int = _setting(5, "Most attempts at a job whose failures may pass", ge=1, le=100)
    dead_keep_s: Count = _setting(30 * 86_400, "Seconds for which dead letters are kept")
    retry_base_s: Seconds = _setting(1.0, "Seconds before the second attempt; doubled for each further one")
    retry_max_s: Seconds = _setting(60.0, "Longest pause between attempts, in seconds")
    start_timeout_s: Seconds = _setting(300.0, "Seconds within which the net must be loaded and warm")

    @field_validator("broker_url", "result_backend", "overlay_store")
    @classmethod
    def _is_a_server(cls, value: str, info: Any) -> str:
        if value and (info.field_name != "overlay_store" or is_redis(value)):
            celery_server(value)
        if info.field_name == "result_backend":
            if value and not is_redis(value):
                raise ValueError(f"results are kept in a Redis; give a URL that begins with {'://, '.join(REDIS)}://")
            if not value and info.data.get("broker_url") and not is_redis(info.data["broker_url"]):
                raise ValueError("RabbitMQ keeps no results; give the URL of a Redis")
        return value

    @field_validator("hard_time_limit_s")
    @classmethod
    def _hard_is_beyond_soft(cls, value: float, info: Any) -> float:
        if value <= info.data.get("soft_time_limit_s", 0):
            raise ValueError("must be more than POSE_SOFT_TIME_LIMIT_S")
        return value

    @property
    def served(self) -> Tuple[str, ...]:
        """The nets that a job may ask for, the default first."""
        return tuple(dict.fromkeys((self.model, *self.models)))

    @property
    def part_nets(self) -> Dict[str, str]:
        """The nets of ``hands`` and of the ``face``, where there are some."""
        nets = {"hands": self.hand_net, "face": self.face_net}
        return {part: name for part, name in nets.items() if name}

    @property
    def nets(self) -> Tuple[str, ...]:
        """All nets that the net process may hold."""
        return tuple(dict.fromkeys((*self.served, *self.part_nets.values())))

    @property
    def most_slot_mb(self) -> int:
        """Most memory of a slot, in MB, the net's included where the slot holds it; 0: any."""
        limits = (self.max_slot_mb, self.max_net_mb) if self.inline else (self.max_slot_mb,)
        return sum(limits) if all(limits) else 0

    @property
    def consumed(self) -> Tuple[str, ...]:
        """The queues that the worker consumes."""
        return self.queues or (self.queue,)

    @property
    def results_url(self) -> str:
        """The Redis that holds results."""
        return self.result_backend or self.broker_url

    @property
    def overlays_url(self) -> str:
        """The store that holds overlays."""
        return self.overlay_store or self.results_url

    def __repr_args__(self) -> Any:
        yield from super().__repr_args__()
        for name in ("broker_url", "result_backend", "overlay_store"):
            yield name, masked(getattr(self, name))


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read settings from `environment`; unset and empty variables take their default.

    Raises:
        SettingsError: a POSE_* variable is unknown, or its value is not allowed; the first that is.
    """
    for sentence in faults(environment):
        raise SettingsError(sentence)
    return Settings.model_validate(_values(environment))


def faults(environment: Mapping[str, str]) -> List[str]:
    """A sentence for each POSE_* variable that is unknown, was removed, or has a value that is not allowed."""
    try:
        values = _values(environment)
    except SettingsError as exc:
        return [str(exc)]
    sentences = []
    for (name, value), reason in _REMOVED.items():
        if name in values and value in (None, values[name]):
            sentences.append(f"{PREFIX}{name.upper()}{f'={value}' if value else ''} was removed: {reason}.")
            del values[name]
    known = ", ".join(sorted(PREFIX + field.upper() for field in Settings.model_fields))
    sentences += [
        f"{PREFIX}{name.upper()} is not a setting of the pose worker; there are {known}."
        for name in values
        if name not in Settings.model_fields
    ]
    try:
        Settings.model_validate({name: text for name, text in values.items() if name in Settings.model_fields})
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            name = str(error["loc"][0])
            value = repr("***" if name == "webhook_secret" else masked(values.get(name, "")))
            shown = value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}…'"
            reason = _WANTED.get(error.get("ctx", {}).get("pattern", ""), reason_in(error))
            sentences.append(f"{PREFIX}{name.upper()} is {shown}: {reason}.")
    return sentences


def _values(environment: Mapping[str, str]) -> Dict[str, str]:
    """The POSE_* variables that are set, by setting; of POSE_<NAME>_FILE, what is in the file.

    Raises:
        SettingsError: such a file cannot be read.
    """
    values: Dict[str, str] = {}
    for variable, text in environment.items():
        name = variable[len(PREFIX) :].lower()
        if not variable.startswith(PREFIX) or (not text and name not in _MAY_BE_EMPTY):
            continue
        if name.endswith("_file") and name[: -len("_file")] in Settings.model_fields:
            name, path = name[: -len("_file")], text
            try:
                text = Path(path).read_text().strip()
            except (OSError, ValueError) as exc:
                why = getattr(exc, "strerror", None) or "it is not text"
                raise SettingsError(f"{variable} is {path!r}, which cannot be read: {why}.") from exc
        values[name] = text
    return values


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, from its environment, read at the first call."""
    return read_settings(os.environ)


def deployed() -> Settings:
    """The settings of this process, for what is of use only where a broker is configured.

    Raises:
        SettingsError: as :func:`read_settings`, or there is no broker.
    """
    if not settings().broker_url:
        raise SettingsError(NO_BROKER)
    return settings()
