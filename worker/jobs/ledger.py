"""The job record: submitted before it is sent, counted before it is tried, ended with its result in one step.

A record lies in the result backend's Redis, whatever the broker is, under ``<prefix>:job:<id>``; its id is also in one
of the sorted sets ``<prefix>:waiting:<queue>``, ``:running``, ``:later`` and ``:dead``. Each step is one Lua script
(worker/jobs/lua), so atomic, and one round trip; a job that goes well costs its client one and its worker two.

::

    record ─► waiting ─► running ─► done | failed | revoked
                 ▲          │
                 ├── later ◄┤ (what may pass)
                 └─ requeue ┴► dead (attempts used up)

A film's work is done in parts, see :mod:`worker.video_contract`: while they are in work, the film is in none of these
states but in ``parts``. A part is a job as any other, but has no dead letter; the last one to end makes its film due.

Imports neither torch nor cv2: clients use it too.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import redis

from worker.contract import TASK, queue_fault
from worker.errors import InvalidRequest
from worker.jobs.where import Where
from worker.servers import DEFAULT_URL, Keys, connect, damaged, queue_list
from worker.settings import Settings

#: Seconds for which the record of a job that has not ended is kept.
KEEP_S = 7 * 86_400
#: Seconds without a sign of life after which an attempt counts as lost.
LEASE_S = 10.0
#: Seconds for which one reconciler holds its lock without renewing it.
_LOCK_S = 4.0
#: Seconds after which a job that was taken from its queue must have begun.
_PATIENCE_S = 5.0
#: Seconds within which Redis must answer.
_TIMEOUT_S = 5.0
#: Seconds within which a job must be recorded whose image has been uploaded.
_UPLOAD_S = 3600
#: Most jobs of a kind that the reconciler looks at in one go.
_MOST = 200
_LUA = Path(__file__).with_name("lua")
_DAMAGED = "The job's record is damaged; submit it again."
#: How ids are decoded and encoded again that strangers have put into Redis.
_ANY_BYTES = "surrogateescape"

#: The states of a job that has ended, apart from ``dead``, which a person may revive.
ENDED = ("done", "failed", "revoked")


@dataclass(frozen=True)
class Message:
    """What must be sent again if a job gets lost."""

    queue: str
    args: List[Any] = field(default_factory=list)
    kwargs: Dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    expires: Optional[str] = None
    headers: Dict[str, Any] = field(default_factory=dict)
    task: str = TASK

    @property
    def digest(self) -> str:
        """SHA-256 of the payload; two jobs of one id must have the same."""
        payload = json.dumps([self.args, self.kwargs], sort_keys=True, default=str)
        return hashlib.sha256(payload.encode()).hexdigest()

    @property
    def list(self) -> str:
        """The Redis list in which it waits."""
        return queue_list(self.queue, self.priority)

    def dumps(self) -> str:
        """As JSON; without the task that all had before there were others, so that workers from then can read it."""
        fields = {name: value for name, value in vars(self).items() if (name, value) != ("task", TASK)}
        return json.dumps(fields, default=str)

    @classmethod
    def loads(cls, text: str) -> Message:
        """From JSON."""
        return cls(**json.loads(text))


class Beginning(NamedTuple):
    """Whether an attempt may be made: ``begun``, or the state that forbids it.

    `attempts` counts those made, this one included; `age_s` is seconds since submission; `step` is what the parts of a
    film have done last, if it had some.
    """

    verdict: str
    attempts: int
    age_s: float
    step: str = ""


class ResultKey(NamedTuple):
    """What is stored together with a step: the key, its new value, its time to live in seconds."""

    key: str
    value: str
    ttl_s: int


class Ledger:
    """The job records of one deployment.

    Every method raises redis.RedisError if Redis does not answer.

    Args:
        client: of the result backend's Redis.
        prefix: as POSE_KEY_PREFIX.
        dead_keep_s: seconds for which dead letters are kept.

    Attributes:
        keys: the names of the keys that it uses.
    """

    def __init__(self, client: redis.Redis, prefix: str, dead_keep_s: int = 30 * 86_400) -> None:
        self._client, self.keys, self._dead_keep_s = client, Keys(prefix), dead_keep_s

    @classmethod
    def of(cls, settings: Settings) -> Ledger:
        """That of the deployment of `settings`, with connections of its own."""
        client = connect(settings.results_url or DEFAULT_URL, _TIMEOUT_S)
        return cls(client, settings.key_prefix, settings.dead_keep_s)

    def close(self) -> None:
        """Close its connections; using it again opens them again."""
        self._client.close()

    def record(self, job_id: str, message: Message) -> str:
        """Write the record of a job that is about to be sent: ``new``, ``same``, or ``other`` if the id is taken."""
        return str(self._run("record", job_id, message.digest, message.dumps(), message.list, KEEP_S))

    def record_many(self, jobs: Sequence[Tuple[str, Message]]) -> List[str]:
        """As :meth:`record`, for many jobs in one round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            for job_id, message in jobs:
                words = (message.digest, message.dumps(), message.list, KEEP_S)
                pipe.evalsha(_sha1("record"), 0, self.keys.prefix, job_id.encode(errors=_ANY_BYTES), *words)
            answers = pipe.execute(raise_on_error=False)
        # Whatever went wrong with one, such as a script that Redis does not have, is met again by itself.
        return [
            self.record(*job) if isinstance(answer, redis.RedisError) else _text(answer)
            for job, answer in zip(jobs, answers)
        ]

    def upload(self, job_id: str, data: bytes, most: int) -> str:
        """Keep an image's bytes beside a job that is about to be recorded, and from then on as long as its record.

        Returns ``kept``; ``known`` if there is a record already; ``full`` if all uploads would be more than `most`
        bytes.
        """
        return str(self._run("upload", job_id, data, _UPLOAD_S, most))

    def uploaded(self, job_id: str, most: int) -> bytes:
        """The bytes beside a job, one more than `most` at the most; empty if there are none."""
        data: bytes = self._client.getrange(self.keys.upload(job_id), 0, most)  # type: ignore[assignment]
        return data

    def withdraw(self, job_id: str) -> None:
        """Take back the record of a job that could not be sent."""
        self._run("withdraw", job_id)

    def begin(
        self, job_id: str, holder: str, message: Message, attempt: Dict[str, Any], most: int, started: ResultKey
    ) -> Beginning:
        """Count an attempt that is about to be made; a job of no record gets one.

        The verdict is ``dead`` if the attempts are used up and the caller is to write the dead letter, by
        :meth:`finish`; ``buried`` once there is one; ``other`` if the id is that of a job with another payload: its
        message, from a client that keeps no records, is none of that job's.

        Args:
            holder: tells this attempt from any other that is made of the job at the same time.
            attempt: where it is made, for the history.
            most: attempts that a job may have; beyond, it is dead.
            started: what says so in the result backend.
        """
        arguments = (message.digest, message.dumps(), message.list, KEEP_S, holder, json.dumps(attempt), most, LEASE_S)
        verdict, attempts, age_s, *step = self._run("begin", job_id, *arguments, *started)
        return Beginning(_text(verdict), int(attempts), float(age_s), _text(step[0]) if step else "")

    def await_parts(
        self, job_id: str, holder: str, own: Message, step: str, frames: int, messages: Sequence[Message]
    ) -> bool:
        """Have a film's work go on in parts, which are recorded, to be sent, and end its attempt.

        A part that was done before stays so. False: it is not this attempt's turn any more.

        Args:
            own: the film's message, to be sent when all parts have ended.
            step: what is done in them, one of worker.video_contract.STEPS.
            frames: of all parts together.
            messages: one for each part, all for one queue.
        """
        words = [word for message in messages for word in (message.digest, message.dumps())]
        arguments = (holder, own.dumps(), step, frames, own.list, KEEP_S)
        return bool(self._run("await", job_id, *arguments, *words))

    def resume(self, job_id: str) -> Optional[Message]:
        """The message of a film whose parts have all ended, which is to be sent; None: it is not its time."""
        text = self._run("resume", job_id, KEEP_S)
        return None if text is None else self.loads(text)

    def part_states(self, job_id: str, step: str, count: int) -> List[str]:
        """The states of a film's parts; empty where one's record is gone."""
        with self._client.pipeline(transaction=False) as pipe:
            for number in range(count):
                pipe.hget(self.keys.job(f"{job_id}/{step}/{number}"), "state")
            return [_text(state or b"") for state in pipe.execute()]

    def renew(self, job_id: str, holder: str) -> None:
        """Say that an attempt is still in work."""
        self._run("renew", job_id, holder, LEASE_S)

    def later(
        self, job_id: str, holder: str, what: str, pause_s: float, most: int, retry: ResultKey, *, counts: bool = True
    ) -> str:
        """After `what` went wrong, have the job sent again in `pause_s` seconds: ``later``; ``dead`` if its dead letter
        is to be written, by :meth:`finish`; or its other state."""
        arguments = (holder, what, int(counts), pause_s, most, KEEP_S)
        return str(self._run("later", job_id, *arguments, *retry))

    def release(self, job_id: str, holder: str, what: str, *, counts: bool) -> str:
        """Say that an attempt was broken off, and its message is given back; returns the job's state then.

        Args:
            counts: whether it was an attempt; not if the worker is at fault.
        """
        return str(self._run("release", job_id, holder, what, int(counts), KEEP_S))

    def finish(self, job_id: str, state: str, result: ResultKey) -> bool:
        """Write an outcome, ``dead`` being one, and its result; False if the job has had one before, which stands."""
        return bool(self._run("finish", job_id, state, *result, self._dead_keep_s))

    def refuse(self, job_id: str, result: ResultKey) -> bool:
        """Write the outcome of a refused message that bears this id; False if a job has it, or something is stored."""
        return bool(self._run("refuse", job_id, *result))

    def suspects(self, token: str, lists: Sequence[str]) -> Optional[Tuple[List[str], List[str], Dict[str, List[str]]]]:
        """For the reconciler: the jobs of expired leases, of pauses that are over, and, of each list, the ones that
        left it and were not begun. None if another reconciler is at work."""
        found = self._run("suspects", token, int(_LOCK_S * 1000), _PATIENCE_S, _MOST, self._dead_keep_s, *lists)
        if found is None:
            return None
        expired: List[List[str]] = [[_text(job_id, _ANY_BYTES) for job_id in ids] for ids in found]
        return expired[0], expired[1], dict(zip(lists, expired[2:]))

    def claim(self, job_id: str, token: str, seen: str) -> Optional[Message]:
        """For the reconciler: the message of a job that it is to send again; None if there is no need any more.

        Args:
            seen: ``running``, ``later`` or ``waiting:<list>``, the set in which the job was.

        Raises:
            InvalidRequest: its record is damaged.
        """
        text = self._run("claim", job_id, token, seen, KEEP_S)
        return None if text is None else self.loads(text)

    def state(self, job_id: str) -> Optional[str]:
        """The job's state; None: there is no record of it."""
        state = self._client.hget(self.keys.job(job_id), "state")
        return None if state is None else _text(state)

    def where(self, job_id: str) -> Where:
        """Where the job is; one round trip."""
        return Where.of([_text(field) for field in self._run("where", job_id)])

    def served(self, queue: str) -> bool:
        """Whether a worker takes jobs from `queue`."""
        return bool(self._client.exists(self.keys.serves(queue)))

    def show(self, job_id: str) -> Dict[str, str]:
        """Everything that is known of a job, its attempts as ``attempt:<n>`` and ``attempt:<n>:end``."""
        record = self._client.hgetall(self.keys.job(job_id))
        return {_text(name): _text(value) for name, value in record.items()}

    def dead(self) -> Iterator[Tuple[str, float]]:
        """The dead letters, the oldest first: id and time of death (Unix time in seconds)."""
        letters: List[Any] = self._client.zrange(self.keys.ours("dead"), 0, -1, withscores=True)
        for job_id, died in letters:
            yield _text(job_id), float(died)

    def count(self) -> Dict[str, int]:
        """How many jobs are ``running``, wait for another attempt (``later``), are films in ``parts``, or ``dead``."""
        sets = ("running", "later", "parts", "dead")
        with self._client.pipeline(transaction=False) as pipe:
            for name in sets:
                pipe.zcard(self.keys.ours(name))
            return dict(zip(sets, pipe.execute()))

    def ages(self, lists: Sequence[str]) -> List[float]:
        """Seconds for which the oldest job of each list has waited there; lists without one are left out."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in lists:
                pipe.zrange(self.keys.waiting(name), 0, 0, withscores=True)
            pipe.time()
            *oldest, (seconds, microseconds) = pipe.execute()
        now = seconds + microseconds / 1e6
        return [max(0.0, now - sent) for found in oldest for _, sent in found]

    def requeue(self, job_id: str) -> Optional[Message]:
        """Revive a job that is dead, failed or revoked; returns the message to send, None if it is no such job."""
        text = self._run("requeue", job_id, KEEP_S)
        return None if text is None else self.loads(text)

    def purge(self, job_id: str) -> bool:
        """Remove a dead letter; False if it is none."""
        return bool(self._run("purge", job_id))

    def loads(self, text: str) -> Message:
        """The message in a record.

        Raises:
            InvalidRequest: it is damaged.
        """
        try:
            message = Message.loads(text)
            if queue_fault(message.queue) is None:
                return message
        except (ValueError, TypeError, RecursionError):
            pass
        raise InvalidRequest(_DAMAGED)

    def load(self) -> None:
        """Give Redis the scripts. Users that may not do so, such as senders, can call them from then on."""
        with self._client.pipeline(transaction=False) as pipe:
            for step in {path.stem for path in _LUA.glob("*.lua")} - {"common"}:
                pipe.script_load(_script(step))
            pipe.execute()

    def _run(self, step: str, job_id: str, *arguments: Any) -> Any:
        words = (0, self.keys.prefix, job_id.encode(errors=_ANY_BYTES), *arguments)
        try:
            try:
                answer = self._client.evalsha(_sha1(step), *words)
            except redis.exceptions.NoScriptError as exc:  # Redis was started anew, or no worker has come yet
                try:
                    self.load()
                except redis.exceptions.NoPermissionError:  # a sender's; the next worker loads them
                    raise exc from None
                answer = self._client.evalsha(_sha1(step), *words)
        except redis.ResponseError as exc:
            if damaged(exc):
                raise InvalidRequest(_DAMAGED) from exc
            raise
        return _text(answer) if isinstance(answer, bytes) else answer


def token() -> str:
    """What tells one reconciler from another."""
    return secrets.token_hex(8)


@cache
def _script(step: str) -> str:
    return "".join((_LUA / f"{part}.lua").read_text(encoding="utf-8") for part in ("common", step))


@cache
def _sha1(step: str) -> str:
    """By which Redis calls a script that it has."""
    return hashlib.sha1(_script(step).encode()).hexdigest()


def _text(value: Any, errors: str = "replace") -> str:
    return value.decode(errors=errors) if isinstance(value, bytes) else str(value)
