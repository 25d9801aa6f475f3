"""The tasks that a message embeds: what Celery sends when the job has ended, in the worker's name."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from worker.contract import queue_fault
from worker.errors import InvalidRequest

#: What a body may hold beside the arguments.
_KINDS = {"callbacks", "errbacks", "chain", "chord"}


def check_embedded(embedded: Any) -> None:
    """Check the third part of a message's body.

    Raises:
        InvalidRequest: it is not what Celery writes, or names what is no queue.
    """
    if embedded is not None and not (isinstance(embedded, dict) and set(embedded) <= _KINDS):
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
