"""What the worker's parent must know of Celery's prefork pool and of Celery's own state.

Each function names the test in tests/unit/broker/test_pool.py that fails if the library changes below it.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from typing import Any, Optional

import billiard.pool
from billiard.process import current_process
from celery.concurrency.prefork import TaskPool
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.worker import state

#: Tries of a slot, 0.1 s apart, to see that its parent has read how its last job ended.
_LAST_WORDS_TRIES = 20


def is_prefork(worker: Any) -> bool:
    """Whether Celery's `worker` runs its jobs in processes of their own; other pools lose jobs here."""
    return issubclass(worker.pool_cls, TaskPool)


def dead_slot(worker: Any) -> Optional[int]:
    """The exit status of a slot that has died; None if all live.

    Test: a_slot_that_dies_at_its_start_ends_the_worker.
    """
    return next((child.exitcode for child in worker.pool._pool._pool if not child.is_alive()), None)


def slot_index() -> int:
    """In a slot: its number in its worker, from 0."""
    return int(current_process().index)


def use_private_folder() -> None:
    """Have the pool map its unlinked files in the system's folder for temporary files.

    It makes a folder of its own otherwise, which a SIGKILL leaves behind.
    Test: nothing_is_left_in_the_folder_for_temporary_files.
    """
    multiprocessing.current_process()._config["tempdir"] = tempfile.gettempdir()  # type: ignore[attr-defined]


def leave_soon() -> None:
    """In a slot: wait 2 s, not 30, for the parent to read how the last job ended.

    Of a job that a slot had just been given when the worker is to stop, Celery's parent never reads that; the
    result is in Redis. Test: a_slot_that_ends_reads_how_long_to_wait_where_it_is_set.
    """
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = _LAST_WORDS_TRIES


def is_stopping() -> bool:
    """Whether the worker is to stop."""
    return state.should_stop is not None or state.should_terminate is not None


def raise_if_stopping() -> None:
    """Leave as Celery does, if the worker is to stop."""
    if state.should_stop is not None:
        raise WorkerShutdown(state.should_stop)
    if state.should_terminate is not None:
        raise WorkerTerminate(state.should_terminate)


def has_jobs() -> bool:
    """Whether a slot has a job in work."""
    return bool(state.active_requests)
