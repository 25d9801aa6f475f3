"""The Celery app of a worker, and the one step that keeps house in its parent process."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import sys
from typing import Any, Dict, List, Mapping

import redis
from celery import Celery, bootsteps, signals
from celery.utils.log import get_logger
from kombu import Exchange, Queue

from worker import logs
from worker.broker import commands, pool
from worker.broker.gate import forbid_compression
from worker.broker.refused import Refused
from worker.broker.send import send
from worker.children import die_with_parent
from worker.errors import PoseError, SettingsError
from worker.jobs.ledger import Ledger
from worker.jobs.reconciler import Reconciler
from worker.notify.notifier import Notifier
from worker.notify.pending import Pending
from worker.observe.backlog import depth_of_rabbitmq
from worker.observe.tracing import tracer
from worker.process.parent import Parent
from worker.process.preflight import wrong
from worker.servers import DEFAULT_URL
from worker.settings import settings
from worker.storage.sweeper import sweeper

logger = get_logger(__name__)


class PoseApp(Celery):
    """What Celery hands to every task, request and consumer, and so the one object for what they share.

    Attributes:
        parent: what the worker's main process holds; slots have it from before they forked.
        slot, films: what a slot holds, and does for films; not there in the parent.
        incarnation: tells this worker from the one of its name that was killed before it.
    """

    amqp_cls = "worker.broker.transport:CheckedAmqp"
    parent: Parent
    slot: Any  # worker.process.slot.Slot, which brings OpenCV
    films: Any  # worker.process.film.FilmWork
    incarnation: str = secrets.token_hex(4)

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        """As Celery's; what is sent to others, such as what follows upon a job, expires as results do."""
        if not name.startswith("pose.") and options.get("expires") is None:
            options["expires"] = settings().result_expires_s
        return super().send_task(name, *args, **options)

    @functools.cached_property
    def ledger(self) -> Ledger:
        """The job records; each process that uses them has connections of its own."""
        return Ledger.of(settings())

    @functools.cached_property
    def pending(self) -> Pending:
        """Who is to hear of a job's end."""
        return Pending.of(settings())

    @functools.cached_property
    def refused(self) -> Refused:
        """The messages that were refused."""
        return Refused.of(settings())


app = PoseApp("worker")
app.config_from_object("celeryconfig")
forbid_compression()


@signals.celeryd_init.connect
def take_device(sender: str = "", conf: Any = None, **_: Any) -> None:
    """Before anything else: find the worker's device by its name, hold it, and count the slots it is good for."""
    for sentence in wrong(os.environ):
        _leave(sentence)
    try:
        app.parent = Parent(settings(), sender)
    except PoseError as exc:
        _leave(str(exc))
    conf.worker_concurrency = app.parent.slots
    # Inherited by every child: whatever they load must not start threads of its own beside the net's.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        if not settings().inline:
            os.environ.setdefault(variable, "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until Celery has set its own, nothing has begun
    app.parent.launch_net()


@signals.after_setup_logger.connect
@signals.after_setup_task_logger.connect
def dress_log(logger: Any, **_: Any) -> None:
    """Whatever Celery has set up to log with writes our lines."""
    logs.dress(logger, app.parent.name)


class House(bootsteps.StartStopStep):
    """Stands between the pool and the consumer: net and slots get ready, then the worker consumes.

    While it does, three threads look after what no slot can: jobs that were lost, those who want to hear of an end,
    files whose time is over.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._threads: List[Any] = []
        try:
            _check_pool(worker)
        except SettingsError as exc:
            _leave(str(exc))
        from worker.process.prepare import prepare  # which brings OpenCV

        app.parent.slots = worker.concurrency
        prepare()
        pool.use_private_folder()
        commands.obey_listed()

    def start(self, worker: Any) -> None:
        """Wait for the net and for the slots; leave with one sentence if one of them cannot start."""

        def look() -> Any:
            pool.raise_if_stopping()
            return pool.dead_slot(worker)

        parent = app.parent
        try:
            parent.await_net(pool.is_stopping)
            parent.ready.wait(worker.concurrency, settings().start_timeout_s, look)
        except PoseError as exc:
            pool.raise_if_stopping()
            worker.pool.terminate()
            _leave(str(exc))
        parent.keep(lambda: os.kill(os.getpid(), signal.SIGTERM))
        with contextlib.suppress(redis.RedisError):  # else the first step that finds none there loads them
            app.ledger.load()
        url = settings().broker_url or DEFAULT_URL
        resend, depth = functools.partial(send, app, url), functools.partial(depth_of_rabbitmq, url=url)
        self._threads = [
            Reconciler(Ledger.of(settings()), settings(), resend, app.backend.mark_as_failure, depth),
            Notifier(Pending.of(settings()), settings(), _stored, _call_back),
            *filter(None, [sweeper(settings())]),
        ]
        for thread in self._threads:
            thread.start()
        logger.info("● ready: %d slots on %s", worker.concurrency, parent.device)

    def stop(self, worker: Any) -> None:
        """Nothing is consumed any more, and the slots end when their jobs do."""
        self._rest()
        if app.parent.trouble:
            logs.last_words(app.parent.trouble, app.parent.name)
            worker.exitcode = 1

    def terminate(self, worker: Any) -> None:
        """The slots are about to be ended."""
        self._rest()
        app.parent.board.worker.leaving = True
        worker.exitcode = 1 if app.parent.trouble else 0

    def _rest(self) -> None:
        """Leave to other workers what the threads did."""
        for thread in self._threads:
            thread.stop()


app.steps["worker"].add(House)


def _check_pool(worker: Any) -> None:
    if not pool.is_prefork(worker):
        raise SettingsError(
            f"The pool {worker.pool_cls.__module__} loses jobs here; start the worker with --pool prefork."
        )
    if settings().inline and worker.concurrency != 1:
        raise SettingsError(
            f"With POSE_INLINE the one slot holds the net, so --concurrency must be 1 (got {worker.concurrency}); "
            "leave one of the two out."
        )


def _stored(job_id: str) -> Dict[str, Any]:
    """What the result backend holds of a job, in Celery's form; empty if nothing."""
    text = app.backend.client.get(app.backend.get_key_for_task(job_id))
    meta: Dict[str, Any] = app.backend.decode(text) if text else {}
    return meta


def _call_back(name: str, queue_name: str, argument: Mapping[str, Any], task_id: str) -> None:
    """Send the task that a job's sender wants to have sent at its end."""
    # Declared by its own consumers, in whichever way they want it.
    there = Queue(queue_name, Exchange(""), routing_key=queue_name, no_declare=True)
    app.send_task(name, args=[argument], queue=there, task_id=task_id, ignore_result=True, retry=False)


def _leave(sentence: str) -> None:
    """End the worker with `sentence` as its last line and status 1, which its supervisor sees."""
    parent = getattr(app, "parent", None)
    if parent is not None:
        parent.close(0.0)
    logs.last_words(sentence, parent.name if parent else "")
    raise SystemExit(1)


@signals.worker_shutting_down.connect
def limit_drain(**_: Any) -> None:
    """Give the jobs in work POSE_GRACE_S seconds; what is not done then goes back to the queue."""
    app.parent.drain(_give_back)


def _give_back() -> None:
    """End the jobs in work; a worker that only waits for its idle slots to leave is not disturbed in that."""
    if pool.has_jobs():
        os.kill(os.getpid(), signal.SIGQUIT)


@signals.worker_shutdown.connect
def release_device(**_: Any) -> None:
    """The last thing that a worker does."""
    app.parent.close(grace_s=2.0)  # no slot waits for a batch any more


@signals.worker_process_init.connect
def start_slot(**_: Any) -> None:
    """In the prefork child: get ready and say so. A slot that cannot says why and ends."""
    die_with_parent()
    parent = app.parent
    parent.in_slot()
    pool.leave_soon()
    try:
        from worker.process.film import FilmWork
        from worker.process.life import Life
        from worker.process.slot import Slot

        life = Life(parent.board, pool.slot_index())
        app.slot = Slot(
            settings(), parent.device, parent.name, life, parent.net_address, tracer(settings(), parent.name)
        )
        app.films = FilmWork(app.slot)
        app.slot.warm()
    except Exception as exc:
        logger.critical("✗ A slot cannot start: %s", exc, exc_info=not isinstance(exc, PoseError))
        parent.ready.say(str(exc) or type(exc).__name__)
        if parent.ready.over:
            parent.board.worker.broken = True  # else a worker without slots would go on taking jobs
        os._exit(1)
    parent.ready.say()


@signals.worker_process_shutdown.connect
def end_slot(**_: Any) -> None:
    """In the slot, at its end: spans that were not sent are sent."""
    if app.slot.tracer is not None:
        app.slot.tracer.stop()


@signals.task_revoked.connect
def job_revoked(request: Any, **_: Any) -> None:
    """In the parent: a job was taken from the queue in order not to be done."""
    app.parent.board.worker.revoked += 1
    app.pending.ring(request.id)
