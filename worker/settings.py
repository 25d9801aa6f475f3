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

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.errors import SettingsError
from worker.keys import DEFAULT_PREFIX
from worker.servers import DEFAULT_URL, REDIS, celery_server, is_redis

PREFIX = "POSE_"
_NAME = r"^[A-Za-z0-9_.-]+$"
#: Most slots of one worker: the rows of its board.
MAX_SLOTS = 128
#: Settings that are secret as a whole; of URLs, only the passwords in them are.
_SECRETS = ("webhook_secret",)
#: What an older version had: a variable and its value (None: any) → why it was removed, and what to use instead.
_REMOVED: Dict[Tuple[str, Optional[str]], str] = {
    ("compile", "inductor"): "no gain was measured; set it to graph (CUDA graphs) or off",
    ("signing", None): "signed messages knew no roles and kept clients in other languages out; unset it, and protect "
    "the broker with TLS (rediss://) and Redis' ACL",
}
#: What is said where a broker is needed and none is configured.
NO_BROKER = f"POSE_BROKER_URL is not set; set it to your Redis, e.g. {DEFAULT_URL}."
#: Characters of a value that a message shows.
_MOST_SHOWN = 200
_MODELS = Path(__file__).resolve().parent.parent / "models"


class Settings(BaseModel):
    """What one deployment of the worker is told. Each field is the variable ``POSE_<NAME>``."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    broker_url: str = Field(
        "",
        repr=False,
        description="Where jobs come from, e.g. `redis://:password@host:6379/0`; also `rediss://`, `unix://`, "
        "`sentinel://host,host/0?master=name`, `amqp://` and `amqps://`",
    )
    result_backend: str = Field(
        "", repr=False, description="Where results go: a Redis, by URL. Empty: the broker, if it is one"
    )
    overlay_store: str = Field(
        "",
        repr=False,
        description="Where overlays go: `redis://…`, `file:///directory` or `s3://bucket/prefix`. "
        "Empty: the result backend's Redis",
    )
    key_prefix: str = Field(
        DEFAULT_PREFIX,
        pattern=_NAME,
        description="Begins every Redis key that is not Celery's own; another than `pose` begins those, too, but the "
        "queues', so that several deployments, each with its own prefix and queues, share a server",
    )
    queue: str = Field("pose", pattern=_NAME, description="The queue that clients send to, and workers consume")
    queues: Tuple[str, ...] = Field(
        (),
        description="The queues that this worker consumes, separated by commas, e.g. one for a net or for what is "
        "urgent. Empty: POSE_QUEUE",
    )
    model: str = Field(
        "mobilenet_thin",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="The net to load: a folder in the models directory",
    )
    models: Tuple[str, ...] = Field(
        (), description="Other nets that the worker serves when a job asks for them, separated by commas"
    )
    max_nets: int = Field(
        0, ge=0, description="Most nets in memory at a time, the least recently used leaving; 0: as many as fit"
    )
    models_dir: Path = Field(_MODELS, description="The folder that holds the nets' folders")
    engine: Literal["torch", "caffe2", "null"] = Field(
        "torch", description="What executes the NetDef; `null` finds nobody, for measuring everything else"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="The net's arithmetic; auto: fp32 on a CPU, fp16 on a GPU"
    )
    compile: Literal["off", "graph"] = Field(
        "off",
        description="How the net is made faster for input sizes that come again: `graph`: CUDA graphs (PyTorch engine "
        "on a GPU)",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|(GPU|MIG)-[0-9A-Za-z/-]+)$",
        description="`cpu`, `cuda:0`, a GPU's or MIG instance's UUID; auto: by the worker's name (`gpu3@host`), "
        "else a free GPU, else the CPU",
    )
    share_device: bool = Field(False, description="Whether a GPU may have several workers")
    inline: bool = Field(False, description="Hold the net in the one slot instead of in a process of its own")
    slots: int = Field(0, ge=0, le=MAX_SLOTS, description="Jobs in work at a time; 0: by cores per GPU, 2 on a CPU")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of the net; 0: one for each core")
    max_batch: int = Field(0, ge=0, le=256, description="Most inputs in one pass of the net; 0: 4 on a GPU, 1 on a CPU")
    batch_wait_ms: float = Field(
        2.0, ge=0, description="Longest wait for inputs that are on their way to share a pass, in milliseconds"
    )
    net_timeout_s: float = Field(
        30.0, gt=0, description="Seconds after which a net process that does not answer is killed and started again"
    )
    grace_s: float = Field(
        30.0, gt=0, description="Seconds that a stopping worker gives its jobs; then they go back to the queue"
    )
    heartbeat_dir: Path = Field(
        Path(tempfile.gettempdir()) / f"pose-worker-{os.getuid()}",
        description="Where each worker's heartbeat file is, for `python -m worker check`; `none`: nowhere",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Where `gpu0` answers Prometheus over HTTP; `gpu1` at the next port, and so on; 0: nowhere",
    )
    metrics_bind: str = Field("0.0.0.0", description="The address at which POSE_METRICS_PORT is open")
    log: Literal["text", "json"] = Field("text", description="Log lines for people, or one JSON object a line")
    tracing: bool = Field(
        False, description="Whether spans go to an OpenTelemetry collector, which the OTEL_* variables tell of"
    )
    cpu_workers: int = Field(1, ge=1, le=64, description="Workers that a fleet runs on a machine without a GPU")
    warm_sizes: Tuple[Tuple[int, int], ...] = Field(
        ((368, 496), (368, 656)),
        description="Net input sizes, height x width in pixels, run once before the first job",
    )
    image_roots: Tuple[str, ...] = Field(
        (".",),
        description="Folders whose images may be read, separated by `:`; symbolic links are resolved first. And URLs "
        "below which images may be read: `s3://bucket/prefix`, `https://host/path`",
    )
    max_message_bytes: int = Field(
        1 << 18, ge=1 << 12, description="Largest message, in bytes; a larger one is refused"
    )
    max_bytes: int = Field(64 << 20, ge=1, description="Largest image file, in bytes")
    max_pixels: int = Field(64_000_000, ge=1, description="Largest image, in pixels")
    max_aspect: float = Field(100.0, ge=1, description="Longest side divided by the shortest")
    url_timeout_s: float = Field(
        20.0, gt=0, description="Seconds within which an image must have come from its URL, or a webhook answered"
    )
    private_hosts: Tuple[str, ...] = Field(
        (),
        description="Hosts, of images and webhooks, that may have addresses which are not public, separated by commas; "
        "`*.example.org` for a domain's",
    )
    webhook_secret: str = Field(
        "",
        repr=False,
        pattern=r"^(.{16,})?$",
        description="Signs the calls of webhooks (HMAC-SHA256), 16 characters or more. Empty: none is called",
    )
    file_grace_s: float = Field(
        0.0,
        ge=0,
        description="Seconds after submission in which a missing file is waited for (network file systems)",
    )
    result_expires_s: int = Field(86_400, ge=1, description="Seconds for which results and overlays are kept")
    soft_time_limit_s: float = Field(60.0, gt=0, description="Seconds after which a job is interrupted and retried")
    hard_time_limit_s: float = Field(90.0, gt=0, description="Seconds after which a job's process is killed")
    max_attempts: int = Field(5, ge=1, le=100, description="How often a job is tried when a failure is transient")
    dead_keep_s: int = Field(30 * 86_400, ge=1, description="Seconds for which dead letters are kept")
    retry_base_s: float = Field(1.0, gt=0, description="Seconds before the second attempt; doubles each time")
    retry_max_s: float = Field(60.0, gt=0, description="Longest pause between attempts, in seconds")
    start_timeout_s: float = Field(300.0, gt=0, description="Seconds within which the net must be loaded and warm")

    @field_validator("broker_url", "result_backend")
    @classmethod
    def _is_a_server(cls, value: str, info: Any) -> str:
        if value and "://" not in value:
            raise ValueError("is no URL, such as redis://:password@host:6379/0")
        if value:
            celery_server(value)
        if info.field_name == "result_backend":
            if value and not is_redis(value):
                raise ValueError(f"results are kept in a Redis; give a URL that begins with {'://, '.join(REDIS)}://")
            if not value and info.data.get("broker_url") and not is_redis(info.data["broker_url"]):
                raise ValueError("RabbitMQ keeps no results; give the URL of a Redis")
        return value

    @field_validator("overlay_store")
    @classmethod
    def _is_a_store(cls, value: str) -> str:
        if is_redis(value):
            celery_server(value)
        elif value and not re.match(r"file:///.|s3://[^/]", value):
            raise ValueError("must be redis://…, file:///folder or s3://bucket/prefix")
        return value

    @field_validator("metrics_bind", "private_hosts")
    @classmethod
    def _are_hosts(cls, value: Any) -> Any:
        for host in (value,) if isinstance(value, str) else value:
            if not re.fullmatch(r"(\*\.)?[A-Za-z0-9._-]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", host):
                raise ValueError(f"{masked(host)!r} is neither the name of a host nor an address")
        return value

    @field_validator("hard_time_limit_s")
    @classmethod
    def _hard_is_beyond_soft(cls, value: float, info: Any) -> float:
        if value <= info.data.get("soft_time_limit_s", 0):
            raise ValueError("must be more than POSE_SOFT_TIME_LIMIT_S")
        return value

    @field_validator("image_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        # Not at the colons of a URL: that of its scheme, and that in front of a port.
        parts = re.split(rf"{os.pathsep}(?!//|\d+(?:/|{os.pathsep}|$))", value)
        return tuple(part for part in parts if part)

    @field_validator("image_roots")
    @classmethod
    def _are_roots(cls, value: Tuple[str, ...]) -> Tuple[str, ...]:
        if not value:
            raise ValueError("allows no image; name a folder")
        if any(re.match(r"file:(?!///)", root) for root in value):
            raise ValueError("a file:// URL has three slashes: file:///data/images")
        return value

    @field_validator("models", "queues", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        names = value.replace(",", " ").split() if isinstance(value, str) else value
        wrong = next((name for name in names if not re.match(_NAME, name)), None)
        if wrong is not None:
            raise ValueError(f"{masked(wrong)!r} is not a name of letters, digits, dots, dashes and underscores")
        return tuple(names)

    @field_validator("private_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("warm_sizes", mode="before")
    @classmethod
    def _split_sizes(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(tuple(size.lower().split("x")) for size in value.replace(",", " ").split())

    @property
    def served(self) -> Tuple[str, ...]:
        """The nets that the worker serves, the default first."""
        return tuple(dict.fromkeys((self.model, *self.models)))

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


def masked(url: str) -> str:
    """`url` with every password in it replaced by ``***``, fit for logs and error messages; also if it is none."""
    start, at, rest = url.rpartition("@")
    if at and "://" in start and not start.startswith("file:"):
        scheme, _, credentials = start.partition("://")
        start = f"{scheme}://{credentials.split(':', 1)[0]}:***"
    elif at and not start.startswith("file:"):  # no URL at all, yet perhaps with a password
        start = "***"
    return re.sub(r"(password=)[^&]*", r"\1***", start + at + rest)


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
            value = repr("***" if name in _SECRETS else masked(values.get(name, "")))
            shown = value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}…'"
            sentences.append(f"{PREFIX}{name.upper()} is {shown}: {_reason(error)}.")
    return sentences


def _values(environment: Mapping[str, str]) -> Dict[str, str]:
    """The POSE_* variables that are set, by setting; of POSE_<NAME>_FILE, what is in the file.

    Raises:
        SettingsError: such a file cannot be read.
    """
    values: Dict[str, str] = {}
    for variable, text in environment.items():
        name = variable[len(PREFIX) :].lower()
        if not variable.startswith(PREFIX) or not text:
            continue
        if name.endswith("_file") and name[: -len("_file")] in Settings.model_fields:
            name, text = name[: -len("_file")], _contents(variable, text)
        values[name] = text
    return values


def _contents(variable: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not text"
        raise SettingsError(f"{variable} is {path!r}, which cannot be read: {reason}.") from exc


def _reason(error: Any) -> str:
    message = error["msg"]
    if "webhook_secret" in error["loc"]:
        return "must have 16 characters or more"
    if error["type"] == "value_error":  # one of ours
        return str(message).replace("Value error, ", "", 1)
    return str(message[0].lower() + message[1:])


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


def table() -> str:
    """All settings as a Markdown table, for the README."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(name, field.default)} | {field.description} |")
    return "\n".join(rows)


def _default(name: str, value: Any) -> str:
    if name == "models_dir":
        return "`models/`"
    if name == "heartbeat_dir":
        return "`/tmp/pose-worker-<uid>`"
    if name == "warm_sizes":
        return "`" + ",".join(f"{height}x{width}" for height, width in value) + "`"
    if isinstance(value, tuple):
        return "`" + ":".join(value) + "`" if value else ""
    return f"`{value}`" if value != "" else ""


if __name__ == "__main__":
    import sys

    sys.stdout.write(table() + "\n")
