"""For other services: submit an image, wait for its people, fetch the picture.

>>> client = PoseClient("redis://127.0.0.1:6379/0")
>>> job = client.submit("/data/street.jpg", target_height=368)
>>> job.result(timeout=30).people[0].keypoints[0]      # the nose: x, y, confidence
>>> picture = job.overlay()                            # JPEG bytes
>>> for job, outcome in client.map(paths):             # many, as they end
...     print(job.image, outcome)
>>> film = client.submit_video("/data/street.mp4")     # its frames are spread over all workers
>>> film.progress().phase, film.result().most_people

worker.client.aio has the same for asyncio. Imports neither torch nor cv2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from itertools import islice
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, TypeVar, Union

import celery
import celery.exceptions
import kombu.exceptions
import redis

from worker.broker.send import send
from worker.client.app import broker_errors, client_app, untrusted
from worker.client.film import progress_of
from worker.client.find import EXTENSIONS, find_images
from worker.client.handle import Handle, JobHandle, VideoHandle
from worker.client.job import Deadline
from worker.client.outcome import AnyOutcome, Outcome, not_ended, of_kind, result_of
from worker.client.result import Result
from worker.client.sender import Sender
from worker.client.sending import Limits
from worker.client.silence import SILENT_S, warn, why_not_ended
from worker.client.status import JobStatus, status_of
from worker.client.waiting import Waiting, next_of
from worker.contract import Overlay
from worker.errors import BrokerUnavailable, InvalidRequest, JobFailed, PoseError, SettingsError
from worker.jobs.ledger import Ledger
from worker.notify.pending import Pending
from worker.servers import DEFAULT_PREFIX, connect, masked, no_worker
from worker.servers import queue as declared_queue
from worker.storage.urls import delete, fetch, open_store
from worker.video_contract import Progress, VideoJob, VideoResult

#: Jobs of :meth:`PoseClient.map` that are on the queue or in work at a time: enough to keep a rack of GPUs busy, few
#: enough that neither this process nor Redis fills up.
IN_FLIGHT = 64
#: Jobs that are recorded, and sent, in one go.
_AT_ONCE = 100
#: Seconds for which it is kept that a job was cancelled.
_CANCELLED_S = 86_400

AnyHandle = TypeVar("AnyHandle", bound=Handle[Any])


class PoseClient:
    """Submits jobs to the workers of one broker.

    Args:
        broker_url: as the workers' POSE_BROKER_URL.
        result_backend: as the workers' POSE_RESULT_BACKEND; the broker if not given.
        queue: as the workers' POSE_QUEUE.
        key_prefix: as the workers' POSE_KEY_PREFIX.
        max_bytes, max_uploads_bytes, max_message_bytes: as the workers' POSE_MAX_BYTES, POSE_MAX_UPLOADS_BYTES and
            POSE_MAX_MESSAGE_BYTES, for images that are sent with their jobs.
        overlay_store: as the workers' POSE_OVERLAY_STORE; the result backend if not given. From nowhere else are
            overlays and maps fetched, whatever a result says.

    Raises:
        SettingsError: one of the URLs is of no server that there is.
    """

    def __init__(
        self,
        broker_url: str,
        *,
        result_backend: Optional[str] = None,
        queue: str = "pose",
        key_prefix: str = DEFAULT_PREFIX,
        overlay_store: Optional[str] = None,
        max_bytes: int = 64 << 20,
        max_uploads_bytes: int = 1 << 30,
        max_message_bytes: int = 1 << 18,
    ) -> None:
        self._url = self.broker_url = broker_url
        self._results_url = result_backend or broker_url
        self.app = client_app(broker_url, self._results_url, key_prefix)
        self._queue = declared_queue(queue, broker_url)
        self._store = open_store(overlay_store or self._results_url, key_prefix)
        results = connect(self._results_url, timeout_s=5)
        self._ledger = Ledger(results, key_prefix)
        self._pending = Pending(results, key_prefix)
        limits = Limits(max_bytes, max_uploads_bytes, max_message_bytes)
        self._sender = Sender(self.app, broker_url, self._queue.name, self._ledger, self._pending, limits)

    def __repr__(self) -> str:
        return f"PoseClient({masked(self._url)!r}, queue={self._queue.name!r})"

    def __enter__(self) -> PoseClient:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; handles of this client are of no use afterwards."""
        self._store.close()
        self._ledger.close()
        self.app.backend.close()  # the broker's connections are the whole process's, and stay
        self.app.close()

    def submit(
        self,
        path: Any = None,
        *,
        data: Any = None,
        upload: bool = False,
        job_id: Optional[str] = None,
        priority: int = 0,
        expires: Optional[Deadline] = None,
        webhook: Optional[str] = None,
        callback: Union[str, Mapping[str, str], None] = None,
        queue: Optional[str] = None,
        **options: Any,
    ) -> JobHandle:
        """Put one image on the queue.

        Args:
            path: the image's path as the workers see it, relative ones resolved here; or a URL.
            data: the image itself, instead of a path: a file's bytes, a PIL image, or a NumPy array uint8 (H, W, 3) in
                BGR, as OpenCV has it, or grey (H, W). It is sent with the job, and removed when the job has ended.
            upload: whether the file at `path`, as this process sees it, is sent with the job.
            job_id: the caller's own, which makes submission idempotent: the same job under the same id is sent once,
                however often it is submitted.
            priority: 0 to 9, as the broker has it: with Redis 0 goes first, with RabbitMQ 9.
            expires: the deadline, in seconds from now or as a moment: a job that no worker has taken by then is not
                done, and its result is JobCancelled.
            webhook: a URL that is called when the job has ended, in whichever way; see docs/clients.md.
            callback: the name of a Celery task that is sent when the job has ended, or ``{"task": …, "queue": …}``.
            queue: another queue than the client's.
            options: fields of :class:`worker.contract.Options`.

        Raises:
            ImageNotFound, ImageTooLarge: the image cannot be sent with the job; nothing was sent.
            InvalidRequest: an argument is unknown, of the wrong type or out of range; nothing was sent.
            JobConflict: `job_id` was used before, for another image or other options; nothing was sent.
            BrokerUnavailable: the broker does not answer; nothing was sent.
        """
        given: Dict[str, Any] = {
            "job_id": job_id,
            "priority": priority,
            "expires": expires,
            "webhook": webhook,
            "callback": callback,
            "queue": queue,
        }
        job = self._sender.new(path, data=data, upload=upload, **given, **options)
        self._sender.send([job])
        return JobHandle(self, job.id, job.path)

    def submit_video(self, path: Any, *, upload: bool = False, **arguments: Any) -> VideoHandle:
        """Put one film on the queue, whose work is spread over all workers.

        Args:
            path: the film's, as :meth:`submit` has an image's.
            upload: whether the file at `path`, as this process sees it, is sent with the job, if it has no more bytes
                than an image may have.
            arguments: `job_id`, `priority`, `expires`, `webhook`, `callback` and `queue`, as :meth:`submit` has them;
                and options, fields of :class:`worker.video_contract.VideoOptions`.

        Raises: as :meth:`submit`.
        """
        job = self._sender.new(path, kind=VideoJob, upload=upload, **arguments)
        self._sender.send([job])
        return VideoHandle(self, job.id, job.path)

    def submit_many(self, paths: Iterable[Any], **arguments: Any) -> List[JobHandle]:
        """Put many images on the queue, with the same arguments; see :meth:`submit`, and :meth:`map` for very many.

        A hundred are recorded in one round trip, and sent in another where the broker is a Redis. If that fails, the
        hundreds before have been sent.
        """
        check_many(arguments)
        left, handles = iter(paths), []
        at_once = 1 if arguments.get("upload") else _AT_ONCE  # one image in memory, not a hundred
        while some := [self._sender.new(path, **arguments) for path in islice(left, at_once)]:
            self._sender.send(some)
            handles += [JobHandle(self, job.id, job.path) for job in some]
        return handles

    def submit_directory(
        self, folder: Any, *, extensions: Sequence[str] = EXTENSIONS, **arguments: Any
    ) -> List[JobHandle]:
        """Put the images of a folder and its subfolders, as this process sees it, on the queue; see :meth:`submit`."""
        if not os.path.isdir(folder):  # noqa: PTH112 - bytes are paths, too
            raise InvalidRequest(f"{os.fspath(folder)!r} is not a folder on this machine; submit its images by path.")
        return self.submit_many((found.path for found in find_images([folder], extensions)), **arguments)

    def map(
        self, paths: Iterable[Any], *, in_flight: int = IN_FLIGHT, timeout: Optional[float] = None, **arguments: Any
    ) -> Iterator[Tuple[JobHandle, Outcome]]:
        """Submit images and give each job with its outcome as it ends, in whatever order.

        At most `in_flight` jobs are open at a time, however many `paths` there are.

        Args:
            timeout: seconds without any job ending after which TimeoutError is raised; None: never.
            arguments: as :meth:`submit`.
        """
        check_many(arguments)
        jobs = (self.submit(path, **arguments) for path in paths)
        yield from self.as_completed(jobs, in_flight=in_flight, timeout=timeout)

    def as_completed(
        self,
        jobs: Iterable[AnyHandle],
        *,
        in_flight: Optional[int] = None,
        timeout: Optional[float] = None,
        check: Callable[[], Optional[bool]] = lambda: None,
    ) -> Iterator[Tuple[AnyHandle, Any]]:
        """Give each of `jobs`, images' and films', with its outcome as it ends; see :meth:`map`.

        An outcome is the result of a job of this kind, or the exception that says why there is none.

        Args:
            in_flight: how many of `jobs` are taken, and waited for, at a time; None: all.
            check: called while no job ends; what it raises ends the wait. Where it returns True, something went on, and
                `timeout` begins anew.
        """
        left, waiting = iter(jobs), Waiting(self.ended, timeout, check)
        taken: Dict[str, AnyHandle] = {}
        while True:
            taken.update((job.id, job) for job in next_of(left, len(taken), in_flight))
            if not taken:
                return
            for job_id, outcome in waiting.look(taken):
                job = taken.pop(job_id)
                yield job, of_kind(job_id, outcome, job.RESULT)
            time.sleep(waiting.pause_s)

    def job(self, job_id: str) -> JobHandle:
        """An image's job that was submitted before, by this process or another; that it exists is not asked."""
        return JobHandle(self, job_id)

    def video(self, job_id: str) -> VideoHandle:
        """The same of a film's job."""
        return VideoHandle(self, job_id)

    def cancel(self, job_id: str) -> bool:
        """Have a job not done, or its result not kept if it is in work; False if it has ended already.

        Whoever waits for it gets JobCancelled.

        Raises:
            BrokerUnavailable: the result backend does not answer.
        """
        with broker_errors(self._url):
            if not self._ledger.finish(job_id, "revoked", self.app.backend.revoked(job_id, _CANCELLED_S)):
                return False
            self._pending.ring(job_id)
        return True

    def state(self, job_id: str) -> str:
        """Celery's state of a job: PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED.

        Raises:
            JobFailed: what is stored is no worker's.
            BrokerUnavailable: the result backend does not answer.
        """
        with broker_errors(self._url):
            try:
                return str(self.app.AsyncResult(job_id).state)
            except kombu.exceptions.DecodeError as exc:
                raise untrusted(job_id) from exc

    def status(self, job_id: str) -> JobStatus:
        """Where a job is: waiting, and how many are before it; in work, and where; failed, and why.

        Raises:
            BrokerUnavailable: the result backend does not answer.
        """
        with broker_errors(self._url):
            where = self._ledger.where(job_id)
        return status_of(job_id, where, dict(self.ended([job_id])).get(job_id), self._url)

    def progress(self, job_id: str) -> Progress:
        """How far a film is; one round trip.

        Raises:
            BrokerUnavailable: the result backend does not answer.
        """
        with broker_errors(self._url):
            return progress_of(self._ledger.where(job_id))

    def retry(self, job_id: str) -> None:
        """Have a job that is failed, dead or revoked done again, under its id, with all its attempts and no deadline.

        Raises:
            InvalidRequest: it has not ended, has a result, or is not known any more.
            SettingsError: it is dead, and this client's user may not revive dead letters.
            BrokerUnavailable: the broker or the result backend does not answer.
        """
        with broker_errors(self._url):
            try:
                message = self._ledger.requeue(job_id)
            except redis.exceptions.NoPermissionError:
                raise SettingsError(
                    f"Job {job_id} is dead, and this user may not revive it; use a worker's or an admin's URL."
                ) from None
            if message is None:
                raise InvalidRequest(
                    f"Job {job_id} cannot be done again: it has not ended, has a result, or is not known; submit it."
                )
            with contextlib.suppress(redis.RedisError):
                self._pending.reopen(job_id)
            send(self.app, self._url, job_id, dataclasses.replace(message, expires=None))

    def wait(self, job: Handle[Any], timeout: Optional[float] = None) -> Union[Result, VideoResult]:
        """The result of `job`, of whichever kind it is; see :meth:`worker.client.handle.Handle.result`."""
        with broker_errors(self._url):
            stored = self.app.AsyncResult(job.id)
            try:
                outcome = self._got(stored, timeout)
            except celery.exceptions.TimeoutError as exc:
                raise TimeoutError(not_ended(job, timeout, why_not_ended(self, job.id))) from exc
            except kombu.exceptions.DecodeError as exc:
                raise untrusted(job.id) from exc
        return result_of(job.id, stored.state, outcome)

    def _got(self, stored: Any, timeout: Optional[float]) -> Any:
        """What Celery's `stored` result holds, once it does; after some seconds, the log says why it may take long."""
        if timeout is None or timeout > SILENT_S:
            with contextlib.suppress(celery.exceptions.TimeoutError):
                return stored.get(SILENT_S, propagate=False)
            warn(self, stored.id)
            timeout = None if timeout is None else timeout - SILENT_S
        return stored.get(timeout, propagate=False)

    def unserved(self) -> Optional[str]:
        """A sentence, if no worker takes jobs from this client's queue; None if one does, or if that is not known."""
        with contextlib.suppress(redis.RedisError):
            if not self._ledger.served(self._queue.name):
                return no_worker(self._queue.name, self._url)
        return None

    def ended(self, job_ids: Iterable[str]) -> Iterator[Tuple[str, AnyOutcome]]:
        """Of `job_ids`, those that have ended: pairs of id and a Result, a film's VideoResult, or the exception that
        ended the job.

        One round trip for all; does not wait.
        """
        ids = list(job_ids)
        backend = self.app.backend
        with broker_errors(self._url):
            stored = backend.mget([backend.get_key_for_task(job_id) for job_id in ids]) if ids else []
        for job_id, text in zip(ids, stored):
            try:
                meta: Dict[str, Any] = backend.decode_result(text, job_id) if text else {}
                if meta.get("status") not in celery.states.READY_STATES:
                    continue
                outcome: AnyOutcome = result_of(job_id, meta["status"], meta["result"])
            except PoseError as exc:
                outcome = exc
            except Exception:  # whatever reading one result raises ends no batch
                outcome = untrusted(job_id)
            yield job_id, outcome

    def fetch(self, stored: Overlay, job_id: str) -> bytes:
        """The bytes of what a job's result says is stored: its overlay, its maps, a film's keypoints.

        Raises: as :meth:`worker.client.handle.Handle.overlay`.
        """
        return fetch(self._store, stored, job_id)

    def discard(self, job_id: str, result: Union[Result, VideoResult, None] = None) -> None:
        """Delete what is stored of a job that has ended: its result and, given `result`, all that this names: overlay,
        maps, a film's keypoints.

        Files are left to the workers, which delete them after POSE_RESULT_EXPIRES_S.
        """
        with broker_errors(self._url):
            self.app.backend.forget(job_id)
        for name in ("overlay", "maps", "keypoints"):
            stored = getattr(result, name, None)
            if stored is not None:
                delete(self._store, stored, job_id)


def check_many(arguments: Mapping[str, Any]) -> None:
    """Raises InvalidRequest if `arguments` of many jobs has what only one job can have."""
    if arguments.get("job_id") is not None:
        raise InvalidRequest("job_id: many jobs cannot have one id; submit them one by one.")


__all__ = ["BrokerUnavailable", "JobFailed", "PoseClient", "check_many"]
