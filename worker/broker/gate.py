"""What a message must be before Celery looks at it: JSON of our task, of bounded size and depth, with honest headers.

Whatever a client has written, Celery and the task get protocol 2 with keyword arguments, see worker.broker.protocol.

Celery trusts its messages: a header of the wrong type, a body that is none or is nested a thousand times, or one that
unpacks to gigabytes ends the whole worker, and some headers lift its time limits. Here, in the worker's parent, each
message is looked at first; see :mod:`worker.broker.consumer` for what becomes of one that is refused.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Iterator, List, Optional, Tuple

import kombu.compression
from celery.app.task import Context
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.utils.json import dumps
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from worker.broker.embedded import check_embedded
from worker.broker.envelope import NO_MESSAGE, in_words
from worker.broker.protocol import as_protocol_2, by_keyword
from worker.contract import TASK, id_fault
from worker.errors import InvalidRequest
from worker.files import printable
from worker.video_contract import PART_TASK, VIDEO_TASK, part_of

#: Lists and objects within one another; our own arguments have four.
MAX_DEPTH = 20
#: By more than this no two zones differ.
_A_DAY = timedelta(days=1)
#: Seconds by which a message may come before the time at which it is to be done, as those do that RabbitMQ held back.
_EARLY = timedelta(seconds=2)


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


#: Headers that a task would take for its own state, or that decide what the worker's settings decide.
_DROPPED = {*dir(Context), "argsrepr", "kwargsrepr", "ignore_result", "on_node"} - set(_Headers.model_fields)


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


def check(message: Any, max_bytes: int, callback_queues: Tuple[str, ...]) -> None:
    """Check kombu's `message`, put it in the one form that the worker knows, and take from its headers what the worker
    decides itself.

    Args:
        max_bytes: as POSE_MAX_MESSAGE_BYTES.
        callback_queues: as POSE_CALLBACK_QUEUES.

    Raises:
        InvalidRequest: one sentence on what is wrong.
    """
    if message.content_type == NO_MESSAGE:
        why = printable(str((message.headers or {}).get("why")))
        raise InvalidRequest(f"The message was refused: {why:.300}; send what docs/message.md says.")
    if message.errors:
        raise InvalidRequest(f"The message cannot be read: {in_words(message.errors[0][1])}; send plain JSON.")
    if len(message.body or b"") > max_bytes:
        raise InvalidRequest(f"The message has {len(message.body)} bytes, more than {max_bytes}; send a smaller one.")
    if message.content_type != _JSON or (message.content_encoding or "utf-8").lower() not in _ENCODINGS:
        raise InvalidRequest(
            f"The message is {message.content_type!r:.100} in {message.content_encoding!r:.100}; "
            f"this worker takes JSON ({_JSON}) in utf-8."
        )
    try:
        written = message.decode()
    except Exception as exc:  # of whatever kind the JSON's own types raise
        raise InvalidRequest(
            f"The message's body cannot be read: {in_words(exc)}; send what docs/message.md says."
        ) from exc
    if not isinstance(message.headers, dict):
        raise InvalidRequest("The message's headers are no object; send what docs/message.md says.")
    message.headers, body = as_protocol_2(message.headers, written)
    _check_headers(message)
    body = _checked_body(message.headers["task"], body, callback_queues)
    if body != written:
        # Celery reads one or the other. Test: every_client_is_understood.
        message.body, message._decoded_cache = dumps(body).encode(), body
        message.content_encoding = "utf-8"


#: How text may be called that is UTF-8.
_ENCODINGS = ("utf-8", "utf8", "us-ascii", "ascii", "binary")
_JSON = "application/json"


def _check_headers(message: Any) -> None:
    for name in _DROPPED & set(message.headers):
        del message.headers[name]
    if too_deep(message.headers) or too_deep(message.properties):
        raise InvalidRequest(f"The message's headers are nested more than {MAX_DEPTH} times; send plain ones.")
    task = message.headers.get("task")
    # What names itself a part of a film without being one ends where it would begin: there is no record of it.
    wrong_id = None if task == PART_TASK and part_of(message.headers.get("id")) else id_fault(message.headers.get("id"))
    if wrong_id:
        raise InvalidRequest(f"{wrong_id}.")
    try:
        headers = _Headers.model_validate(message.headers)
    except ValidationError as exc:
        fault = exc.errors(include_url=False, include_input=False)[0]
        raise InvalidRequest(
            f"The message's header {fault['loc'][0]!r:.100} is wrong ({fault['msg'].lower()}); "
            "send what docs/message.md says."
        ) from exc
    if headers.task not in (TASK, VIDEO_TASK, PART_TASK):
        raise InvalidRequest(f"The task {headers.task!r:.200} is not known here; send {TASK} or {VIDEO_TASK}.")
    _check_eta(message.headers.pop("eta", None))
    if not all(isinstance(name, str) for name in message.headers):
        raise InvalidRequest("The message's headers have names that are no text.")


def _check_eta(eta: Optional[str]) -> None:
    """Celery's parent would hold a message until its time, in memory and as many as there are. Here none is held."""
    moment = maybe_iso8601(eta)
    if moment is not None and maybe_make_aware(moment) > datetime.now(timezone.utc) + _EARLY:
        raise InvalidRequest(f"The message is not to be done before {eta:.40} (eta, countdown); send it then.")


def _checked_body(task: str, body: Any, callback_queues: Tuple[str, ...]) -> List[Any]:
    """The body, with the arguments by keyword; what says that there are none may also be null."""
    if not isinstance(body, (list, tuple)) or len(body) != 3:
        raise InvalidRequest("The message's body must be a list of arguments, keyword arguments and what is embedded.")
    args, kwargs = [] if body[0] is None else body[0], {} if body[1] is None else body[1]
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise InvalidRequest(
            "The message's body must begin with a list and an object, the arguments; see docs/message.md."
        )
    if "self" in kwargs:  # which is what Celery calls the task itself
        raise InvalidRequest("self is not an argument; see docs/message.md.")
    if too_deep(body):
        raise InvalidRequest(f"The message is nested more than {MAX_DEPTH} times; send what docs/message.md says.")
    check_embedded(body[2], callback_queues)
    return [*by_keyword(task, args, kwargs), body[2]]


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
