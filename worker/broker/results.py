"""Celery's Redis result backend, as the workers and as the clients use it."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

import redis
from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import TaskRevokedError
from kombu.exceptions import DecodeError

from worker import errors
from worker.errors import DeadLetter, PoseError
from worker.jobs.ledger import ResultKey

#: How Celery's final states are called in the ledger.
_STATES = {states.SUCCESS: "done", states.FAILURE: "failed", states.REVOKED: "revoked"}


class _Encoding:
    """What the ledger stores together with a step, in Celery's own form (`_get_result_meta`).

    Test: other_outcomes_are_read.
    """

    def encoded(
        self, task_id: str, result: Any, state: str, *, request: Any = None, traceback: Any = None, ttl_s: int = 0
    ) -> ResultKey:
        """The result backend's key of job `task_id`, and its new value.

        Args:
            result: what the state carries; an exception for one that says what went wrong.
            state: Celery's name of it.
            ttl_s: seconds for which it is kept; 0: as long as results are.
        """
        backend: Any = self
        carried = backend.prepare_exception(result) if isinstance(result, BaseException) else result
        meta = {**backend._get_result_meta(carried, state, traceback, request), "task_id": task_id}
        key = backend.get_key_for_task(task_id)
        key = key.decode() if isinstance(key, bytes) else key
        return ResultKey(key, backend.encode(meta), ttl_s or int(backend.expires))


class ResultBackend(_Encoding, RedisBackend):
    """Stores an outcome in one step with the job's record: the first one stands.

    A :class:`PoseError` is stored by its type and its sentence; anything else with its traceback.
    """

    def mark_as_failure(
        self, task_id: str, exc: BaseException, traceback: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Store the failure `exc` of job `task_id`."""
        kept = None if isinstance(exc, PoseError) else traceback
        return super().mark_as_failure(task_id, exc, kept, *args, **kwargs)

    def refuse(self, task_id: str, exc: PoseError) -> bool:
        """Store `exc` as the failure of a refused message's id, unless that is a job's, or something is stored."""
        return bool(self.app.ledger.refuse(task_id, self.encoded(task_id, exc, states.FAILURE)))

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store an outcome, until Redis answers."""
        ended = "dead" if isinstance(result, DeadLetter) else _STATES.get(state, "")
        return super().store_result(task_id, result, state, *args, ended=ended, **kwargs)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **rest: Any
    ) -> Any:
        """Store `result`. Celery's own reads the key first, which the ledger's step need not.

        Test: the_outcome_is_stored_before_the_message_is_acknowledged.
        """
        if rest.get("ended"):  # states on the way there are the ledger's own to write
            stored = self.encoded(task_id, result, state, request=request, traceback=traceback)
            self.app.ledger.finish(task_id, rest["ended"], stored)
        return result

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whatever Redis says, a result is not given up: it may be read-only, full or loading for a while."""
        return isinstance(exc, redis.RedisError) or bool(super().exception_safe_to_retry(exc))


class ClientBackend(_Encoding, RedisBackend):
    """Listens for a result only while somebody waits for it.

    Celery's own subscribes to every job at submission, which costs a round trip and memory for each, also for jobs
    whose results are collected in batches.
    """

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: see the class."""

    _closed = False

    def revoked(self, task_id: str, ttl_s: int) -> ResultKey:
        """What says that job `task_id` was cancelled, to be kept for `ttl_s` seconds."""
        return self.encoded(task_id, TaskRevokedError("cancelled"), states.REVOKED, ttl_s=ttl_s)

    def decode_result(self, payload: Any, task_id: Optional[str] = None) -> Any:
        """What is stored under the key of `task_id`: its id, state and result; nothing else of it is used.

        Raises:
            DecodeError: it is no result, or that of another job.
        """
        try:
            meta = json.loads(payload)  # not Celery's own, which unpacks what is compressed, to any size
            state, named = str(meta["status"]), str(meta["task_id"])
            if state not in states.ALL_STATES or task_id not in (None, named):
                raise ValueError(f"of {named}: {state}")
            return self.meta_from_decoded({"status": state, "result": meta.get("result"), "task_id": named})
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as exc:
            raise DecodeError(f"it is no result of this job ({exc!r:.200})") from exc

    def exception_to_python(self, exc: Any) -> Any:
        """The error that is stored as `exc`: of our types by its name, else of none. Nothing else is looked up, or run.

        Test: errors_of_ours_keep_their_type_and_others_are_named.
        """
        if isinstance(exc, BaseException):
            return exc
        kind, said = str(exc["exc_type"]), exc.get("exc_message")
        sentence = " ".join(map(str, said)) if isinstance(said, list) else str(said)
        ours = getattr(errors, kind, None)
        if isinstance(ours, type) and issubclass(ours, PoseError):
            return ours(sentence)
        return RuntimeError(f"{kind}: {sentence}")

    def _get_task_meta_for(self, task_id: str) -> Dict[str, Any]:
        """What is stored of a job. As Celery's, but the id is looked at.

        Test: what_is_no_result_of_the_job_is_not_taken_for_one.
        """
        stored = self.get(self.get_key_for_task(task_id))
        meta: Dict[str, Any] = (
            self.decode_result(stored, task_id) if stored else {"status": states.PENDING, "result": None}
        )
        return meta

    def close(self) -> None:
        """Close the connections, for good."""
        self._closed = True
        if "client" in vars(self):  # Celery opens it at its first use
            self.result_consumer.stop()
            self.client.connection_pool.disconnect()

    def on_result_fulfilled(self, result: Any) -> None:
        """Stop listening; a result that is thrown away after the client was closed must not connect again."""
        if not self._closed:
            super().on_result_fulfilled(result)


class SentinelResultBackend(ResultBackend, SentinelBackend):
    """The same behind Sentinel."""


class SentinelClientBackend(ClientBackend, SentinelBackend):
    """The same behind Sentinel."""
