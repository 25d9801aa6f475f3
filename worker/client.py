"""For other services: submit an image, wait for its people, fetch the picture.

>>> client = PoseClient("redis://127.0.0.1:6379/0")
>>> job = client.submit("/data/street.jpg", target_height=368)
>>> job.result(timeout=30).people[0].keypoints[0]      # the nose: x, y, confidence
>>> picture = job.overlay()                            # JPEG bytes

Imports neither torch nor cv2.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from datetime import datetime
from typing import Any, Dict, Iterable, Iterator, Optional, Tuple

import celery
import celery.exceptions
import kombu.exceptions
import redis

from worker.contract import TASK, Result, parse_job
from worker.errors import BrokerUnavailable, JobConflict, JobFailed, PoseError, SettingsError
from worker.ledger import Ledger, Message
from worker.servers import Server, celery_server, connect, is_redis
from worker.servers import queue as declared_queue
from worker.settings import masked
from worker.storage import RedisStore, delete, fetch


class JobHandle:
    """One submitted job: its id, its state, its result."""

    def __init__(self, client: PoseClient, job_id: str, image: str) -> None:
        self._client = client
        self.id = job_id
        self.image = image

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r}, {self.image!r})"

    @property
    def state(self) -> str:
        """Celery's state: PENDING, STARTED, RETRY, SUCCESS or FAILURE."""
        with _broker_errors(self._client):
            return str(self._client.app.AsyncResult(self.id).state)

    def result(self, timeout: Optional[float] = None) -> Result:
        """Wait for the result.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            TimeoutError: the job has not ended within `timeout`; it goes on.
            PermanentError, DeadLetter: how the job failed, typed and in one sentence (see worker.errors).
            JobFailed: the job ended in an error of another kind.
            BrokerUnavailable: the result backend does not answer.
        """
        with _broker_errors(self._client):
            job = self._client.app.AsyncResult(self.id)
            try:
                stored = job.get(timeout, propagate=False)
            except celery.exceptions.TimeoutError as exc:
                raise TimeoutError(
                    f"Job {self.id} for {self.image!r} has not ended within {timeout:g} s; is a worker running?"
                ) from exc
        return _outcome(self.id, job.state, stored)

    def overlay(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """The rendered picture as encoded bytes (see ``result().overlay.media_type``); None if none was asked for.

        Raises: as :meth:`result`, and StorageUnavailable if the overlay store does not answer.
        """
        overlay = self.result(timeout).overlay
        return None if overlay is None else self._client.fetch(overlay.url)


class PoseClient:
    """Submits jobs to the workers of one broker.

    Args:
        broker_url: as the workers' POSE_BROKER_URL.
        result_backend: as the workers' POSE_RESULT_BACKEND; the broker if not given.
        queue: as the workers' POSE_QUEUE.
        key_prefix: as the workers' POSE_KEY_PREFIX.

    Raises:
        SettingsError: one of the URLs is of no server that there is.
    """

    def __init__(
        self,
        broker_url: str,
        *,
        result_backend: Optional[str] = None,
        queue: str = "pose",
        key_prefix: str = "pose",
    ) -> None:
        self._url = broker_url
        self._results_url = result_backend or broker_url
        broker, results = _servers(broker_url, self._results_url)
        self._queue = declared_queue(queue, broker_url)
        self._store = RedisStore(self._results_url)
        self._ledger = Ledger(connect(self._results_url, timeout_s=5), key_prefix)
        self.app = celery.Celery("pose-client", broker=broker.url, backend=results.url, set_as_current=False)
        # As a setting it would only be read from a configuration module.
        self.app.loader.override_backends = {
            **dict.fromkeys(("redis", "rediss"), "worker.backend:ClientBackend"),
            "sentinel": "worker.backend:SentinelClientBackend",
        }
        self.app.conf.update(
            task_serializer="json",
            result_serializer="json",
            accept_content=["json"],
            # A client that cannot reach the broker says so within seconds instead of waiting for ever.
            broker_transport_options={
                "socket_connect_timeout": 5,
                "max_retries": 1,
                "priority_steps": list(range(10)),
                **broker.options,
            },
            redis_socket_connect_timeout=5,
            result_backend_transport_options={"retry_policy": {"max_retries": 1}, **results.options},
        )

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

    def submit(self, path: Any, **options: Any) -> JobHandle:
        """Put one image on the queue.

        Args:
            path: the image's path as the workers see it, relative ones resolved here; or a URL.
            options: fields of :class:`worker.contract.Options`.

        Raises:
            InvalidRequest: an option is unknown, of the wrong type or out of range; nothing was sent.
            BrokerUnavailable: the broker does not answer; nothing was sent.
        """
        image = os.fspath(path)
        image = os.fsdecode(image) if isinstance(image, bytes) else image
        if "://" not in image:
            image = os.path.abspath(image)  # noqa: PTH100 - keeps symbolic links for the worker to judge
        parse_job(image, options)
        job_id = str(uuid.uuid4())
        self._send(job_id, Message(self._queue.name, kwargs={"image": image, "options": options}))
        return JobHandle(self, job_id, image)

    def _send(self, job_id: str, message: Message) -> None:
        """Record a job, then send it; one that was submitted before under this id is not sent again."""
        with _broker_errors(self):
            known = self._ledger.record(job_id, message)
        if known == "other":
            raise JobConflict(
                f"Job {job_id} was submitted before with another image or other options; choose a new id."
            )
        if known == "same":
            return
        try:
            with _broker_errors(self):
                self.app.send_task(
                    TASK,
                    kwargs=message.kwargs,
                    task_id=job_id,
                    queue=self._queue,
                    priority=message.priority,
                    expires=message.expires and datetime.fromisoformat(message.expires),
                    headers=message.headers,
                    retry=False,
                )
        except BrokerUnavailable:
            with contextlib.suppress(redis.RedisError):
                self._ledger.withdraw(job_id)
            raise

    def ended(self, job_ids: Iterable[str]) -> Iterator[Any]:
        """Of `job_ids`, those that have ended: pairs of id and a Result or the exception that ended the job.

        One round trip for all; does not wait.
        """
        ids = list(job_ids)
        backend = self.app.backend
        with _broker_errors(self):
            stored = backend.mget([backend.get_key_for_task(job_id) for job_id in ids]) if ids else []
        for job_id, text in zip(ids, stored):
            meta: Dict[str, Any] = backend.decode_result(text) if text else {}
            if meta.get("status") in celery.states.READY_STATES:
                try:
                    yield job_id, _outcome(job_id, meta["status"], backend.meta_from_decoded(meta)["result"])
                except Exception as exc:
                    yield job_id, exc

    def fetch(self, overlay_url: str) -> bytes:
        """The bytes of an overlay, by the URL in a result."""
        return fetch(overlay_url, self._store)

    def discard(self, job_id: str, result: Optional[Result] = None) -> None:
        """Delete what is stored of a job that has ended: its result and, given `result`, its overlay."""
        with _broker_errors(self):
            self.app.backend.forget(job_id)
        if result is not None and result.overlay is not None:
            delete(result.overlay.url, self._store)


def _servers(broker_url: str, results_url: str) -> Tuple[Server, Server]:
    url = broker_url
    try:
        broker, url = celery_server(url), results_url
        if not is_redis(url):
            raise ValueError("results are kept in a Redis; give its URL as result_backend")
        return broker, celery_server(url)
    except ValueError as exc:
        raise SettingsError(f"There is no server {masked(url)!r}: {exc}.") from None


def _outcome(job_id: str, state: str, stored: Any) -> Result:
    """A stored outcome as a Result, or raised as the error it is."""
    if state == "SUCCESS":
        return Result.model_validate(stored)
    if isinstance(stored, PoseError):
        raise stored
    raise JobFailed(f"Job {job_id} ended as {state}: {type(stored).__name__}: {stored}.") from (
        stored if isinstance(stored, BaseException) else None
    )


class _broker_errors:  # noqa: N801 - used like a function
    """Translates what celery, kombu and redis raise when the broker is away."""

    def __init__(self, client: PoseClient) -> None:
        self._client = client

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, exc: Any, traceback: Any) -> None:
        # A RuntimeError is what Celery's backend raises when its attempts to connect are used up.
        if isinstance(exc, (kombu.exceptions.OperationalError, redis.RedisError, RuntimeError)):
            raise BrokerUnavailable(
                f"The broker {masked(self._client._url)} does not answer ({exc}); check the URL and the server."
            ) from exc


__all__ = ["BrokerUnavailable", "JobFailed", "JobHandle", "PoseClient", "Result"]
