"""What a message must be before Celery looks at it: JSON of our task, of bounded size and depth, with honest headers.

Celery trusts its messages: a header of the wrong type, a body that is none or is nested a thousand times, or one that
unpacks to gigabytes ends the whole worker, and some headers lift its time limits. Here, in the worker's parent, each
message is looked at first; see :mod:`worker.broker.consumer` for what becomes of one that is refused.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import kombu.compression
from celery.utils.time import maybe_iso8601
from kombu.utils.json import loads
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from worker.contract import TASK, id_fault, queue_fault
from worker.errors import InvalidRequest

#: Bytes of a message that is too large, within which its id is still looked for.
_READ_AT_MOST = 16 << 20
#: Lists and objects within one another; our own arguments have four.
MAX_DEPTH = 20
#: By more than this no two zones differ.
_A_DAY = timedelta(days=1)
#: Headers that would decide what the worker's settings decide, or that Celery sets for itself.
_DROPPED: Tuple[str, ...] = (
    *("timelimit", "shadow", "ignore_result", "stamped_headers", "stamps", "called_directly", "is_eager", "on_node"),
    *("hostname", "loglevel", "logfile", "delivery_info", "args", "kwargs", "properties", "headers"),
    *("argsrepr", "kwargsrepr"),
)
#: What Celery embeds in a body beside the arguments: tasks that are to be sent when this one has ended.
_EMBEDDED = {"callbacks", "errbacks", "chain", "chord"}


class RawFault(NamedTuple):
    """What is wrong with something that was taken from a queue, and the id of the job if there is one."""

    why: str
    job_id: Optional[str]


class _Headers(BaseModel):
    """The headers that Celery acts upon; others, such as a trace's, are passed on."""

    model_config = ConfigDict(extra="allow", strict=True)

    id: str
    task: str
    root_id: Optional[str] = None
    parent_id: Optional[str] = None
    group: Optional[str] = None
    group_index: Optional[int] = None
    lang: Optional[str] = None
    origin: Optional[str] = None
    retries: Optional[int] = None
    eta: Optional[str] = None
    expires: Optional[str] = None
    replaced_task_nesting: Optional[int] = None

    @field_validator("eta", "expires")
    @classmethod
    def _is_a_time(cls, value: Optional[str]) -> Optional[str]:
        moment = maybe_iso8601(value)
        if value is not None and not isinstance(moment, datetime):
            raise ValueError("it is no time")
        if moment is not None:
            _in_any_zone(moment)
        return value


def _in_any_zone(moment: datetime) -> None:
    """Raises ValueError if `moment` is so near to the end of all time that it has none elsewhere, where Celery asks."""
    try:
        _ = moment + _A_DAY, moment - _A_DAY
    except OverflowError as exc:
        raise ValueError("it is a time of no calendar") from exc


def forbid_compression() -> None:
    """Have no message of any broker unpacked: a few kilobytes may stand for gigabytes."""
    for kind in kombu.compression.encoders():
        kombu.compression.register(None, _packed, kind)


def _packed(_: Any) -> None:
    raise ValueError("it is compressed")


def raw_fault(item: bytes, max_bytes: int) -> Optional[RawFault]:
    """What is wrong with `item`, taken from a Redis list, if kombu could not even make a message of it."""
    if len(item) > _READ_AT_MOST:
        return RawFault(f"it has {len(item)} bytes, more than {max_bytes}", None)
    try:
        plain = json.loads(item)
    except (ValueError, RecursionError) as exc:
        return RawFault(f"it is not JSON ({told(exc)})", None)
    too_large = f"it has {len(item)} bytes, more than {max_bytes}" if len(item) > max_bytes else None
    fault = too_large or _kombus_fault(item)
    return RawFault(fault, _id_in(plain.get("headers") if isinstance(plain, dict) else None)) if fault else None


def _kombus_fault(item: bytes) -> Optional[str]:
    """What is wrong with `item` as kombu reads it, whose JSON has dates, bytes and more."""
    try:
        fields = loads(item)
    except Exception as exc:  # of whatever kind the types' own constructors raise
        return f"it is not JSON ({told(exc)})"
    return _envelope_fault(fields if isinstance(fields, dict) else {})


def _envelope_fault(fields: Mapping[str, Any]) -> Optional[str]:
    """What is wrong with the JSON that holds a message on Redis, as kombu takes it apart."""
    properties, headers, body = fields.get("properties"), fields.get("headers"), fields.get("body")
    if not isinstance(properties, dict) or not (headers is None or isinstance(headers, dict)):
        return "it is no Celery message: it has no properties, or no headers"
    delivery, priority = properties.get("delivery_info"), properties.get("priority")
    if not isinstance(delivery, dict) or not _are_strings(delivery, "exchange", "routing_key"):
        return "its delivery_info has no exchange and no routing_key"
    if isinstance(priority, bool) or not (priority is None or isinstance(priority, int)):
        return "its priority is no number"
    if not (body is None or isinstance(body, str)):
        return "its body is no string"
    if properties.get("body_encoding"):
        if properties["body_encoding"] != "base64":
            return "its body's encoding is not base64"
        try:
            base64.b64decode(str(body or "").encode())
        except ValueError as exc:
            return f"its body is not base64 ({told(exc)})"
    return None


def _are_strings(fields: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(fields.get(name), str) for name in names)


def job_id_of(message: Any) -> Optional[str]:
    """The id of the job in kombu's `message`, if it has one that may be used."""
    return _id_in(message.headers)


def _id_in(headers: Any) -> Optional[str]:
    job_id = headers.get("id") if isinstance(headers, dict) else None
    return job_id if id_fault(job_id) is None else None


def check(message: Any, max_bytes: int) -> None:
    """Check kombu's `message`, and take from its headers what the worker decides itself.

    Raises:
        InvalidRequest: one sentence on what is wrong.
    """
    if message.errors:
        raise InvalidRequest(f"The message cannot be read: {told(message.errors[0][1])}; send plain JSON.")
    if len(message.body or b"") > max_bytes:
        raise InvalidRequest(f"The message has {len(message.body)} bytes, more than {max_bytes}; send a smaller one.")
    if message.content_type != _JSON or (message.content_encoding or "utf-8").lower() not in _ENCODINGS:
        raise InvalidRequest(
            f"The message is {message.content_type!r:.100} in {message.content_encoding!r:.100}; "
            f"this worker takes JSON ({_JSON}) in utf-8."
        )
    _check_headers(message)
    try:
        body = message.decode()
    except Exception as exc:  # whatever a decoder raises
        raise InvalidRequest(
            f"The message's body cannot be read: {told(exc)}; send what docs/message.md says."
        ) from exc
    _check_body(body)


#: The one content type that is taken, and how text may be called that is UTF-8.
_JSON = "application/json"
_ENCODINGS = ("utf-8", "utf8", "us-ascii", "ascii", "binary")


def _check_headers(message: Any) -> None:
    if not isinstance(message.headers, dict):
        raise InvalidRequest("The message has no headers; send Celery's protocol 2, as docs/message.md has it.")
    for name in _DROPPED:
        message.headers.pop(name, None)
    if too_deep(message.headers) or too_deep(message.properties):
        raise InvalidRequest(f"The message's headers are nested more than {MAX_DEPTH} times; send plain ones.")
    wrong_id = id_fault(message.headers.get("id"))
    if wrong_id:
        raise InvalidRequest(f"{wrong_id}.")
    try:
        headers = _Headers.model_validate(message.headers)
    except ValidationError as exc:
        fault = exc.errors(include_url=False, include_input=False)[0]
        raise InvalidRequest(
            f"The message's header {fault['loc'][0]!r:.100} is wrong ({fault['msg'].lower()}); "
            "send Celery's protocol 2, as docs/message.md has it."
        ) from exc
    if headers.task != TASK:
        raise InvalidRequest(f"The task {headers.task!r:.200} is not known here; send {TASK}.")
    if not all(isinstance(name, str) for name in message.headers):
        raise InvalidRequest("The message's headers have names that are no text.")


def _check_body(body: Any) -> None:
    if not isinstance(body, (list, tuple)) or len(body) != 3:
        raise InvalidRequest("The message's body must be a list of arguments, keyword arguments and what is embedded.")
    args, kwargs, embedded = body
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise InvalidRequest(
            "The message's body must begin with a list and an object, the arguments; see docs/message.md."
        )
    if "self" in kwargs:  # which is what Celery calls the task itself
        raise InvalidRequest("self is not an argument; see docs/message.md.")
    if too_deep(body):
        raise InvalidRequest(f"The message is nested more than {MAX_DEPTH} times; send what docs/message.md says.")
    if embedded is not None and not (isinstance(embedded, dict) and set(embedded) <= _EMBEDDED):
        raise InvalidRequest("What the message's body embeds must be null, or callbacks, errbacks, chain and chord.")
    for task in _tasks(embedded or {}):
        if not _is_task(task):
            raise InvalidRequest("What the message's body embeds must be tasks as Celery writes them, for queues.")


def _is_task(task: Any) -> bool:
    """Whether `task` is one as Celery writes them, alone or a chain, group or chord of others."""
    if not isinstance(task, dict) or not isinstance(task.get("task"), str):
        return False
    args, kwargs, options = task.get("args", ()), task.get("kwargs", {}), task.get("options", {})
    if not (isinstance(args, (list, tuple)) and isinstance(kwargs, dict) and isinstance(options, dict)):
        return False
    if any(options.get(name) and not _is_queue(options[name]) for name in ("queue", "exchange", "routing_key")):
        return False
    kind = task.get("subtask_type")
    if kind is None:
        return True
    inner = kwargs.get("tasks" if kind in ("chain", "group") else "header")
    if isinstance(inner, dict):  # a chord's header may be a group
        inner = [inner]
    after = [kwargs["body"]] if kind == "chord" and kwargs.get("body") is not None else []
    return kind in ("chain", "group", "chord") and isinstance(inner, list) and all(map(_is_task, inner + after))


def _is_queue(name: Any) -> bool:
    return isinstance(name, str) and queue_fault(name) is None


def _tasks(embedded: Mapping[str, Any]) -> Iterator[Any]:
    """The tasks that are to follow; what is no list of any gives something that is no task."""
    for name, value in embedded.items():
        if value is not None:
            yield from [value] if name == "chord" else value if isinstance(value, list) else [None]


def too_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """Whether lists and objects stand in one another more than `most` times; does not recurse itself."""
    level: List[Any] = [value]
    for _ in range(most + 1):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return False
    return True


def _inner(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return (one for one in inner if isinstance(one, (dict, list, tuple)))


def told(exc: Optional[BaseException]) -> str:
    """What `exc` says, in a line that is not long."""
    text = " ".join(ascii(str(exc)).split())[1:-1]
    return text[:200] or type(exc).__name__
