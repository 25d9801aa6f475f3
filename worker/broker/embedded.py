"""The tasks that a message embeds: what Celery sends when the job has ended, in the worker's name and with its rights.

So only what a sender could be given to send by itself: tasks by name, for queues that the operator lists, alone or as
the chains, groups and chords that Celery's canvas writes. Celery's own tasks, which run others, are none of these.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, Tuple

from worker.contract import id_fault, queue_fault
from worker.errors import InvalidRequest

#: What a body may hold beside the arguments.
_PARTS = {"callbacks", "errbacks", "chain", "chord"}
#: Most tasks that one message may embed, at all depths together.
MAX_TASKS = 50
#: Celery's canvas, and the arguments under which each kind has its tasks.
_CANVAS: Mapping[str, Tuple[str, ...]] = {"chain": ("tasks",), "group": ("tasks",), "chord": ("header", "body")}
#: Options of an embedded task under which there are others.
_FOLLOWERS = ("link", "link_error", "chord")
#: Options that name where it goes, and those that say nothing but how. Others, such as a serializer that is not JSON,
#: would decide what the worker's settings decide.
_WHERE = ("queue", "routing_key")
_HOW: FrozenSet[str] = frozenset(
    {
        *("task_id", "root_id", "parent_id", "group_id", "group_index", "reply_to", "headers", "shadow", "retry"),
        *("countdown", "eta", "expires", "priority", "ignore_result", "time_limit", "soft_time_limit", "retry_policy"),
        *("stamped_headers", "add_to_parent", "delivery_mode", "serializer"),
    }
)


def check_embedded(embedded: Any, queues: Tuple[str, ...]) -> None:
    """Check the third part of a message's body, which is not nested too deep.

    Args:
        queues: where embedded tasks may go, as POSE_CALLBACK_QUEUES.

    Raises:
        InvalidRequest: it is not what Celery's canvas writes, is too much, or goes elsewhere.
    """
    if embedded is not None and not (isinstance(embedded, dict) and set(embedded) <= _PARTS):
        raise InvalidRequest("What the message's body embeds must be null, or callbacks, errbacks, chain and chord.")
    left: List[Any] = []
    for part, value in (embedded or {}).items():
        if value is not None:
            left += [value] if part == "chord" else value if isinstance(value, list) else [None]
    for _ in range(MAX_TASKS):
        if not left:
            return
        left += _inner(left.pop(), queues)
    if left:
        raise InvalidRequest(f"The message embeds more than {MAX_TASKS} tasks; send fewer, or send them yourself.")


def promised(embedded: Any) -> List[str]:
    """The ids that the tasks of a chain's rest and of a chord's body are to have: whoever sent them waits for these.

    Of whatever a stranger embeds, at most MAX_TASKS.
    """
    parts: Dict[str, Any] = embedded if isinstance(embedded, dict) else {}
    chain: Any = parts.get("chain")
    tasks = [parts.get("chord"), *(chain if isinstance(chain, list) else [])][:MAX_TASKS]
    options = [task.get("options") for task in tasks if isinstance(task, dict)]
    found = [one.get("task_id") for one in options if isinstance(one, dict)]
    return [str(task_id) for task_id in found if id_fault(task_id) is None]


def _inner(task: Any, queues: Tuple[str, ...]) -> Iterator[Any]:
    """Check one embedded task; gives those within it, which are to be checked as well."""
    fields = _fields(task)
    options: Dict[str, Any] = fields["options"]
    unknown = set(options) - {*_FOLLOWERS, *_WHERE, *_HOW}
    if unknown or options.get("serializer") not in (None, "json"):
        name = min(unknown, default="serializer")
        raise InvalidRequest(f"An embedded task has the option {name!r:.100}, which is not allowed; leave it out.")
    kind = fields["subtask_type"]
    if kind is None:
        _check_alone(fields["task"], options, queues)
    elif kind not in _CANVAS or fields["task"] != f"celery.{kind}" or fields["args"]:
        raise _not_celerys()
    else:
        members = [fields["kwargs"].get(argument) for argument in _CANVAS[kind]]
        if not isinstance(members[0], (list, dict)):
            raise _not_celerys()
        for member in members:
            yield from _several(member)
    for name in _FOLLOWERS:
        yield from _several(options.get(name))


def _fields(task: Any) -> Dict[str, Any]:
    defaults: Dict[str, Any] = {"args": [], "kwargs": {}, "options": {}, "subtask_type": None}
    fields = {**defaults, **task} if isinstance(task, dict) else {}
    kinds: Dict[str, Any] = {
        "task": str,
        "args": (list, tuple),
        "kwargs": dict,
        "options": dict,
        "subtask_type": (str, type(None)),
    }
    if not all(isinstance(fields.get(name), kind) for name, kind in kinds.items()):
        raise _not_celerys()
    return fields


def _several(value: Any) -> Iterator[Any]:
    """The tasks in `value`: one, several, or none."""
    if value is not None:
        yield from value if isinstance(value, (list, tuple)) else [value]


def _check_alone(name: str, options: Mapping[str, Any], queues: Tuple[str, ...]) -> None:
    if name.startswith("celery."):
        raise InvalidRequest(f"An embedded task is {name!r:.100}, one of Celery's own; name one of yours.")
    named = [options[where] for where in _WHERE if options.get(where) is not None]
    for queue in named or [None]:
        if not isinstance(queue, str) or queue not in queues or queue_fault(queue):
            raise InvalidRequest(
                f"An embedded task, {name!r:.100}, is for the queue {queue!r:.100}, but this worker sends to "
                f"{', '.join(queues) or 'none'} only; name one of these, or list the queue in POSE_CALLBACK_QUEUES."
            )


def _not_celerys() -> InvalidRequest:
    return InvalidRequest("What the message's body embeds must be tasks as Celery's canvas writes them.")
