"""Celery's Redis result backend, as the workers and as the clients use it."""

from __future__ import annotations

from typing import Any, Optional

import redis
from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend
from kombu.exceptions import DecodeError

from worker.errors import DeadLetter, PoseError
from worker.jobs.ledger import Ledger, ResultKey
from worker.settings import settings

#: How Celery's final states are called in the ledger.
_STATES = {states.SUCCESS: "done", states.FAILURE: "failed", states.REVOKED: "revoked"}


class ResultBackend(RedisBackend):
    """Stores an outcome in one step with the job's record: the first one stands.

    A :class:`PoseError` is stored by its type and its sentence; anything else with its traceback.
    """

    def mark_as_failure(
        self, task_id: str, exc: BaseException, traceback: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Store the failure `exc` of job `task_id`."""
        kept = None if isinstance(exc, PoseError) else traceback
        return super().mark_as_failure(task_id, exc, kept, *args, **kwargs)

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store an outcome, until Redis answers."""
        told = "dead" if isinstance(result, DeadLetter) else _STATES.get(state, "")
        return super().store_result(task_id, result, state, *args, told=told, **kwargs)

    def _store_result(  # Celery's own reads the key first, which the ledger's step need not
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        told: str = "",
        **_: Any,
    ) -> Any:
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id
        key = self.get_key_for_task(task_id)
        stored = ResultKey(key.decode() if isinstance(key, bytes) else key, self.encode(meta), int(self.expires))
        if told:  # states on the way there are the ledger's own to write
            Ledger(self.client, settings().key_prefix, settings().dead_keep_s).finish(task_id, told, stored)
        return result

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whatever Redis says, a result is not given up: it may be read-only, full or loading for a while."""
        return isinstance(exc, redis.RedisError) or bool(super().exception_safe_to_retry(exc))


class ClientBackend(RedisBackend):
    """Listens for a result only while somebody waits for it.

    Celery's own subscribes to every job at submission, which costs a round trip and memory for each, also for jobs
    whose results are collected in batches.
    """

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: see the class."""

    _closed = False

    def decode_result(self, payload: Any, task_id: Optional[str] = None) -> Any:
        """What is stored under the key of `task_id`; that of another job, copied there, counts for nothing."""
        meta = self.decode(payload)
        if not isinstance(meta, dict) or "status" not in meta or task_id not in (None, meta.get("task_id")):
            raise DecodeError("it is no result of this job")
        return self.meta_from_decoded(meta)

    def _get_task_meta_for(self, task_id: str) -> Any:  # as Celery's, but the id is looked at
        stored = self.get(self.get_key_for_task(task_id))
        return self.decode_result(stored, task_id) if stored else {"status": states.PENDING, "result": None}

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
