"""The remote commands that a worker obeys: those on a list.

Celery's own list has commands that stop a worker, end its slots, or have it take jobs from any queue. Redis cannot tell
who may publish which command: whoever may publish one may publish all of them.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict

from celery.utils.log import get_logger
from celery.worker import control

from worker.settings import settings

logger = get_logger(__name__)

#: What a worker tells of itself; nothing changes. enable_events is what Flower sends to see jobs.
_TELLING = (
    *("ping", "stats", "active", "reserved", "scheduled", "revoked", "registered", "query_task", "active_queues"),
    *("report", "conf", "clock", "heartbeat", "enable_events", "disable_events"),
)


class _Listed(Dict[str, Callable[..., Any]]):
    """Commands by name; any other is one that is refused."""

    def __missing__(self, name: str) -> Callable[..., Any]:
        return functools.partial(_refuse, name)


def obey_listed() -> None:
    """From now on, obey the commands of this file only.

    Celery's consumer takes its commands from Panel.data when it is made.
    Test: every_other_command_is_refused.
    """
    listed = {name: control.Panel.data[name] for name in _TELLING}
    control.Panel.data = _Listed(listed, revoke=_revoke, pause=_pause, resume=_resume)


def _refuse(name: str, state: Any, **_: Any) -> Dict[str, str]:
    logger.error("✗ The remote command %.100r was refused: it is not on the list.", name)
    return {"error": "this worker does not obey that command; see docs/security.md"}


def _revoke(state: Any, task_id: Any, **_: Any) -> Any:
    """Do not begin a job; unlike Celery's, it does not end a slot in which the job is in work."""
    return control.revoke(state, task_id)


def _pause(state: Any, **_: Any) -> Dict[str, str]:
    """Take no more jobs; those in work go on."""
    for name in settings().consumed:
        state.consumer.cancel_task_queue(name)
    state.app.parent.pause(True)
    return {"ok": "paused"}


def _resume(state: Any, **_: Any) -> Dict[str, str]:
    """Take jobs again."""
    for name in settings().consumed:
        state.consumer.add_task_queue(name)
    state.app.parent.pause(False)
    return {"ok": "resumed"}
