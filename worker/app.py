"""The Celery app, and the step that lets a worker consume only after its net is loaded and warm."""

from __future__ import annotations

import functools
import multiprocessing
import os
import select
import signal
import tempfile
import threading
import time
from datetime import datetime
from typing import Any, Optional, Tuple

import billiard.pool
from celery import Celery, bootsteps, signals
from celery.concurrency.prefork import TaskPool
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils.log import get_logger
from celery.worker import state

from worker import logs
from worker.broker.gate import forbid_compression
from worker.broker.transport import FIRST, guard
from worker.children import die_with_parent
from worker.contract import TASK
from worker.errors import PoseError, SettingsError
from worker.jobs.attempt import Holding, ledger, new_ledger
from worker.jobs.ledger import Message
from worker.jobs.outcome import Outcome
from worker.jobs.reconciler import Reconciler
from worker.notify.announce import Announce
from worker.observe import tracing
from worker.process.life import Watch
from worker.process.limits import Limits, heed
from worker.process.parent import Station
from worker.process.preflight import wrong
from worker.servers import dead_queue, is_redis, queue
from worker.settings import settings
from worker.storage.sweeper import Sweep

logger = get_logger(__name__)

app = Celery("worker")
app.config_from_object("celeryconfig")
guard()
forbid_compression()

#: A slot's word that it is ready is a line of this; another line is why it is not. Made before the fork.
_READY = "ready"
_pipe: Tuple[int, int] = (-1, -1)
#: Set in the parent once the first slots are ready; later ones, which replace a dead one, inherit it.
_started = False
_station: Optional[Station] = None
_watch: Optional[Watch] = None
_tracer: Optional[tracing.Tracer] = None
#: Runs from the first signal to stop.
_drain: Optional[threading.Timer] = None


@signals.celeryd_init.connect
def pin_device(sender: str = "", conf: Any = None, **_: Any) -> None:
    """Before anything else: find the worker's device by its name, hold it, and count the slots it is good for."""
    global _station
    for sentence in wrong(os.environ):
        _leave(sentence)
    try:
        _station = Station(settings(), sender)
    except PoseError as exc:
        _leave(str(exc))
    conf.worker_concurrency = station().slots
    # Inherited by every child: whatever they load must not start threads of its own beside the net's.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        if not settings().inline:
            os.environ.setdefault(variable, "1")


def station() -> Station:
    """This worker's station."""
    assert _station is not None
    return _station


@signals.after_setup_logger.connect
@signals.after_setup_task_logger.connect
def dress_log(logger: Any, **_: Any) -> None:
    """Whatever Celery has set up to log with writes our lines."""
    logs.dress(logger, station().name)


class Preload(bootsteps.StartStopStep):
    """Stands between the pool and the consumer: net and slots get ready, then the worker consumes."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._reconciler: Optional[Reconciler] = None
        try:
            _check_pool(worker)
        except SettingsError as exc:
            _leave(str(exc))
        station().slots = worker.concurrency
        # The pool maps unlinked files; without a private folder for them, none is left behind by a SIGKILL.
        multiprocessing.current_process()._config["tempdir"] = tempfile.gettempdir()  # type: ignore[attr-defined]
        global _pipe
        _pipe = os.pipe()

    def start(self, worker: Any) -> None:
        """Wait for the net and for the slots; leave with one sentence if one of them cannot start."""
        try:
            station().start_net(_stopping)
            _raise_if_stopping()
            self._await_slots(worker)
        except PoseError as exc:
            _raise_if_stopping()
            worker.pool.terminate()
            _leave(str(exc))
        global _started
        _started = True
        if hasattr(worker.pool._pool, "_on_hard_timeout"):  # not where the broker's transport has no event loop
            Limits(worker.pool._pool, worker.hub, station().board, worker.concurrency)
        station().keep(lambda: os.kill(os.getpid(), signal.SIGTERM))
        self._reconciler = Reconciler(new_ledger(), settings(), send, app.backend.mark_as_failure, _depth)
        self._reconciler.start()
        logger.info("● ready: %d slots on %s", worker.concurrency, station().device)

    def stop(self, worker: Any) -> None:
        """Nothing is consumed any more, and the slots end when their jobs do."""
        self._rest()
        if station().trouble:
            logs.last_words(station().trouble, station().name)
            worker.exitcode = 1

    def terminate(self, worker: Any) -> None:
        """The slots are about to be ended."""
        self._rest()
        station().leave()
        worker.exitcode = 1 if station().trouble else 0

    def _rest(self) -> None:
        if self._reconciler is not None:
            self._reconciler.stop()

    def _await_slots(self, worker: Any) -> None:
        deadline = time.monotonic() + settings().start_timeout_s
        words = b""
        while words.count(b"\n") < worker.concurrency:
            _raise_if_stopping()
            if select.select([_pipe[0]], [], [], 0.1)[0]:
                words += os.read(_pipe[0], select.PIPE_BUF)
            for word in words.decode().splitlines():
                if word != _READY:
                    raise SettingsError(word)
            dead = [child for child in worker.pool._pool._pool if not child.is_alive()]
            if dead and not select.select([_pipe[0]], [], [], 0)[0]:
                raise SettingsError(f"A slot died with status {dead[0].exitcode} at its start; see the log above.")
            if time.monotonic() > deadline:
                raise SettingsError(f"The slots were not ready within {settings().start_timeout_s:g} s.")


app.steps["worker"].update((Preload, Announce, Sweep))


def send(job_id: str, message: Message, *, first: bool = False) -> None:
    """Put a job on its queue once more; on Redis at its head, if it has been there and is to be the `first`."""
    url = settings().broker_url or "redis://"
    app.send_task(
        TASK,
        args=message.args,
        kwargs=message.kwargs,
        task_id=job_id,
        queue=queue(message.queue, url),
        priority=message.priority,
        expires=datetime.fromisoformat(message.expires) if message.expires else None,
        headers={**message.headers, FIRST: True} if first and is_redis(url) else message.headers,
        retry=False,
    )


def _depth(name: str) -> int:
    """How many messages wait in RabbitMQ's queue called `name`."""
    with app.connection_for_write() as connection:
        return int(queue(name, settings().broker_url)(connection.default_channel).queue_declare(passive=True)[1])


class DeadQueues(bootsteps.StartStopStep):
    """On RabbitMQ, sees to it that there is a place for messages that cannot be delivered."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, consumer: Any) -> bool:
        """Redis has none: there, attempts are counted by the worker alone."""
        return not is_redis(settings().broker_url or "redis://")

    def start(self, consumer: Any) -> None:
        """Declare them, after each time the worker has connected."""
        for name in settings().consumed:
            dead_queue(name)(consumer.connection.default_channel).declare()


app.steps["consumer"].add(DeadQueues)


def _check_pool(worker: Any) -> None:
    if not issubclass(worker.pool_cls, TaskPool):
        raise SettingsError(
            f"The pool {worker.pool_cls.__module__} loses jobs here; start the worker with --pool prefork."
        )
    if settings().inline and worker.concurrency != 1:
        raise SettingsError(
            f"With POSE_INLINE the one slot holds the net, so --concurrency must be 1 (got {worker.concurrency}); "
            "leave one of the two out."
        )


def _stopping() -> bool:
    return state.should_stop is not None or state.should_terminate is not None


def _raise_if_stopping() -> None:
    if state.should_stop is not None:
        raise WorkerShutdown(state.should_stop)
    if state.should_terminate is not None:
        raise WorkerTerminate(state.should_terminate)


def _leave(sentence: str) -> None:
    """End the worker with `sentence` as its last line and status 1, which its supervisor sees."""
    if _station is not None:
        _station.close(0.0)
    logs.last_words(sentence, _station.name if _station else "")
    raise SystemExit(1)


@signals.worker_shutting_down.connect
def limit_drain(**_: Any) -> None:
    """Give the jobs in work POSE_GRACE_S seconds; what is not done then goes back to the queue."""
    global _drain
    if _drain is None:
        _drain = threading.Timer(settings().grace_s, _give_back)
        _drain.daemon = True
        _drain.start()


def _give_back() -> None:
    """End the jobs in work; a worker that only waits for its idle slots to leave is not disturbed in that."""
    if state.active_requests:
        os.kill(os.getpid(), signal.SIGQUIT)


@signals.worker_shutdown.connect
def release_device(**_: Any) -> None:
    """The last thing that a worker does."""
    station().close(grace_s=2.0)  # no slot waits for a batch any more


@signals.worker_process_init.connect
def start_slot(**_: Any) -> None:
    """In the prefork child: get ready and say so. A slot that cannot says why and ends."""
    from billiard import current_process

    global _watch, _tracer
    die_with_parent()
    here = station()
    here.in_slot()
    _watch = Watch(here.board, current_process().index)
    heed(here.board.slot(current_process().index))
    # At its end a slot waits for its parent to read how its jobs ended. Of a job that it had just been given when the
    # worker was told to stop, Celery's parent never does; the result is in Redis, and 2 s are enough, instead of 30.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 20
    try:
        from worker.process.slot import start

        start(settings(), here.device, here.net_address)
        _tracer = tracing.tracer(settings(), here.name)
    except Exception as exc:
        logger.critical("✗ A slot cannot start: %s", exc, exc_info=not isinstance(exc, PoseError))
        _say(" ".join(str(exc).split()) or type(exc).__name__)
        if _started:
            here.board.give_up()  # else a worker without slots would go on taking jobs
        os._exit(1)
    _say(_READY)


def _say(word: str) -> None:
    if not _started:
        os.write(_pipe[1], word.encode()[: select.PIPE_BUF - 1] + b"\n")


@signals.task_prerun.connect
def job_begins(task: Any, **_: Any) -> None:
    """In the slot: seen on the board from now on, and the ledger is told that it is still in work."""
    if _watch is not None:
        _watch.begin(functools.partial(ledger().renew, *Holding.of(task.request)))


@signals.task_postrun.connect
def job_ends(task: Any, state: str = "", retval: Any = None, **_: Any) -> None:
    """In the slot: its job is done, whatever it ended in."""
    if _watch is None:
        return
    from worker.process.slot import take_laps

    outcome, laps = Outcome.of(task.request, state, retval, _watch.busy_s), take_laps()
    _watch.end(outcome, laps)
    logs.tell(outcome)
    if _tracer is not None and outcome.kind != "ignored":
        _tracer.tell(task.request, outcome, laps)


@signals.worker_process_shutdown.connect
def slot_ends(**_: Any) -> None:
    """In the slot, at its end: what it has not told yet is told."""
    if _tracer is not None:
        _tracer.stop()


@signals.task_revoked.connect
def job_revoked(**_: Any) -> None:
    """In the parent: a job was taken from the queue in order not to be done."""
    station().board.revoke()
