"""The forms in which Celery's clients write a job, made one: protocol 2, with its arguments by keyword.

Protocol 1 has everything in one object, the body; some clients write its body under the headers of protocol 2. See
https://docs.celeryq.dev/en/stable/internals/protocol.html. Nothing is judged here: that is the gate's.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Sequence, Tuple

from worker.contract import Job
from worker.video_contract import VIDEO_TASK, VideoJob

#: What protocol 1 has in its body and protocol 2 in its headers.
_HEADERS = ("id", "task", "retries", "eta", "expires", "group", "group_index", "root_id", "parent_id")
#: What both have in the body, beside the arguments.
_EMBEDDED = ("callbacks", "errbacks", "chain", "chord")


def as_protocol_2(headers: Mapping[str, Any], body: Any) -> Tuple[Dict[str, Any], Any]:
    """The headers and the body of a message, whichever protocol it has; what is of none is left as it is.

    Of a field that is in both places, the header counts.
    """
    if isinstance(body, dict) and {"task", "args", "kwargs"} & set(body):
        found = {"group": body.get("taskset"), **{name: body[name] for name in _HEADERS if name in body}}
        headers = {**{name: value for name, value in found.items() if value is not None}, **headers}
        body = [body.get("args"), body.get("kwargs"), {name: body.get(name) for name in _EMBEDDED}]
    return dict(headers), body


def by_keyword(task: str, args: Sequence[Any], kwargs: Dict[str, Any]) -> Tuple[Sequence[Any], Dict[str, Any]]:
    """Arguments without those that stand by position; all as they are if there are too many, or one comes twice."""
    kind = VideoJob if task == VIDEO_TASK else Job
    named = dict(zip((kind.PLACE, "options"), args))
    if len(args) != len(named) or set(named) & set(kwargs):
        return args, kwargs
    return [], {**named, **kwargs}
