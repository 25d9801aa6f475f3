"""The Celery app, and the step that lets a worker consume only after its net is loaded and warm."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import tempfile
import time
from typing import Any, Tuple

from celery import Celery, bootsteps, signals
from celery.concurrency.prefork import TaskPool
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils.log import get_logger
from celery.worker import state

from worker.errors import PoseError, SettingsError
from worker.processes import die_with_parent
from worker.settings import settings

logger = get_logger(__name__)

app = Celery("worker")
app.config_from_object("celeryconfig")

#: The child's last words on loading the net travel here: "ready …" or "failed …". Made before the fork.
_READY = b"ready "
_pipe: Tuple[int, int] = (-1, -1)
#: Set in the parent once the first child is ready; later children, which replace a dead one, inherit it.
_preloaded = False


class Preload(bootsteps.StartStopStep):
    """Stands between the pool and the consumer: the child loads and warms the net, then the worker consumes."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        try:
            _check_pool(worker)
        except SettingsError as exc:
            _leave(str(exc))
        # The pool maps unlinked files; without a private folder for them, none is left behind by a SIGKILL.
        multiprocessing.current_process()._config["tempdir"] = tempfile.gettempdir()  # type: ignore[attr-defined]
        global _pipe
        _pipe = os.pipe()

    def start(self, worker: Any) -> None:
        """Wait for the child's word; leave with one sentence if it could not load the net."""
        deadline = time.monotonic() + settings().start_timeout_s
        while not select.select([_pipe[0]], [], [], 0.1)[0]:
            if state.should_stop is not None:
                raise WorkerShutdown(state.should_stop)
            if state.should_terminate is not None:
                raise WorkerTerminate(state.should_terminate)
            dead = [child for child in worker.pool._pool._pool if not child.is_alive()]
            if dead:
                _leave(f"The process loading the net died with status {dead[0].exitcode}; see the log above.")
            if time.monotonic() > deadline:
                worker.pool.terminate()
                _leave(f"The net was not ready within {settings().start_timeout_s:g} s; raise POSE_START_TIMEOUT_S.")
        word = os.read(_pipe[0], select.PIPE_BUF)
        if not word.startswith(_READY):
            worker.pool.terminate()
            _leave(word.decode())
        global _preloaded
        _preloaded = True
        logger.info("● ready: %s", word[len(_READY) :].decode())


app.steps["worker"].add(Preload)


def _check_pool(worker: Any) -> None:
    if not issubclass(worker.pool_cls, TaskPool):
        raise SettingsError(
            f"The pool {worker.pool_cls.__module__} loses jobs here; start the worker with --pool prefork."
        )
    if worker.concurrency != 1:
        raise SettingsError(
            f"A worker holds one net, so --concurrency must be 1 (got {worker.concurrency}); start more workers."
        )


def _leave(sentence: str) -> None:
    """End the worker with `sentence` as its last line and status 1, which its supervisor sees."""
    sys.stderr.write(f"pose worker: {sentence}\n")
    sys.stderr.flush()
    raise SystemExit(1)


@signals.worker_process_init.connect
def load_in_child(**_: Any) -> None:
    """In the prefork child: load the net and say so. A child that cannot load says why and ends."""
    from worker.slot import start

    die_with_parent()
    try:
        word = _READY + start(settings()).describe().encode()
    except Exception as exc:
        logger.critical("✗ The net could not be loaded: %s", exc, exc_info=not isinstance(exc, PoseError))
        _say(str(exc).encode())
        if _preloaded:
            os.kill(os.getppid(), signal.SIGTERM)  # else a worker without a net would go on taking jobs
        os._exit(1)
    _say(word)


def _say(word: bytes) -> None:
    if not _preloaded:
        os.write(_pipe[1], word[: select.PIPE_BUF])
