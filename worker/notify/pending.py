"""Who wants to hear of a job's end: kept in the result backend's Redis until they have heard of it.

``<prefix>:calls`` is a sorted set of job ids by the time at which each is looked at next; ``<prefix>:call:<id>`` says
whom to tell. An entry is written before a job's work begins and looked at again every now and then, so that it is
found whatever dies; the job's end only makes that sooner. Any worker may take an entry; it then has it for a while.
Times are this host's: a clock that is wrong by seconds makes a call later by as much.

Imports neither torch nor cv2: clients use it too.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import redis

from worker.contract import Job, parse_job
from worker.errors import InvalidRequest
from worker.servers import DEFAULT_URL, Keys, connect
from worker.settings import Settings

#: Seconds for which an entry is kept at most.
KEEP_S = 7 * 86_400
#: Seconds within which Redis must answer.
_TIMEOUT_S = 5.0
#: Seconds until an entry whose job has not ended is looked at again; doubled each time, up to the second.
LOOK_AGAIN_S = (30.0, 900.0)

#: Takes what is due out of everybody's reach: set, key prefix, now, until when, at most -> pairs of id and fields.
_CLAIM = """
local found = {}
if redis.call('TYPE', KEYS[1])['ok'] ~= 'zset' then -- nothing is due, or what a stranger has put there
  redis.call('DEL', KEYS[1])
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', 0, ARGV[4])) do
  local fields = redis.pcall('HGETALL', ARGV[1] .. id)
  if fields.err or #fields == 0 then -- it has expired, or is none
    redis.call('ZREM', KEYS[1], id)
  else
    redis.call('ZADD', KEYS[1], ARGV[3], id)
    found[#found + 1] = {id, fields}
  end
end
return found
"""


class Call(NamedTuple):
    """Whom to tell of a job's end.

    Attributes:
        webhook: a URL, or None.
        callback: a task's name and queue, or None.
        tries: how often it was tried in vain.
        looks: how often the job was found not to have ended.
    """

    job_id: str
    webhook: Optional[str]
    callback: Optional[Dict[str, str]]
    tries: int = 0
    looks: int = 0


class Pending:
    """The calls of one deployment. Every method raises redis.RedisError if Redis does not answer.

    Args:
        client: of the result backend's Redis.
        prefix: as POSE_KEY_PREFIX.
    """

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._due, self._entry = Keys(prefix).ours("calls"), Keys(prefix).call("")
        self._claim = client.register_script(_CLAIM)

    @classmethod
    def of(cls, settings: Settings) -> Pending:
        """That of the deployment of `settings`, with connections of its own."""
        return cls(connect(settings.results_url or DEFAULT_URL, _TIMEOUT_S), settings.key_prefix)

    def add(self, job_id: str, webhook: Optional[str], callback: Optional[Mapping[str, str]]) -> None:
        """Write an entry; one that is there, or was dealt with, stays as it is."""
        listeners = {"webhook": webhook, "callback": dict(callback) if callback else None}
        if self._client.type(self._due) not in (b"zset", b"none"):  # a stranger's
            self._client.delete(self._due)
        with self._client.pipeline() as pipe:
            pipe.hsetnx(self._entry + job_id, "told", json.dumps(listeners))
            pipe.expire(self._entry + job_id, KEEP_S)
            pipe.zadd(self._due, {job_id: time.time() + LOOK_AGAIN_S[0]}, nx=True)
            pipe.expire(self._due, KEEP_S)
            pipe.execute()

    def ring(self, job_id: str) -> None:
        """The job has ended: its entry is due. Where Redis does not answer, it is looked at by itself, later."""
        with contextlib.suppress(redis.RedisError):
            self._client.zadd(self._due, {job_id: time.time()}, xx=True)

    def claim(self, most: int, lease_s: float) -> List[Call]:
        """Take entries that are due; they are due again in `lease_s` seconds unless they are dealt with."""
        now = time.time()
        taken = self._claim(keys=[self._due], args=[self._entry, now, now + lease_s, most])
        return [_call(job_id, fields) for job_id, fields in taken]

    def done(self, job_id: str) -> None:
        """The entry is dealt with; that, but not the URL, is remembered for as long as its message could come again."""
        with self._client.pipeline() as pipe:
            pipe.zrem(self._due, job_id)
            pipe.hset(self._entry + job_id, mapping={"done": 1, "told": ""})
            pipe.execute()

    def reopen(self, job_id: str) -> None:
        """The job is done once more; its next attempt writes a new entry, of those who want to hear of that end."""
        self._client.delete(self._entry + job_id)

    def later(self, job_id: str, pause_s: float, *, counted: Optional[str] = None) -> None:
        """Have the entry due again in `pause_s` seconds; `counted` is the count that goes up, if one does."""
        with self._client.pipeline() as pipe:
            pipe.zadd(self._due, {job_id: time.time() + pause_s}, xx=True)
            if counted:
                pipe.hincrby(self._entry + job_id, counted, 1)
            pipe.execute()


def _call(job_id: Any, fields: List[Any]) -> Call:
    entry = {_text(name): _text(value) for name, value in zip(fields[::2], fields[1::2])}
    try:
        listeners = {} if "done" in entry or "told" not in entry else json.loads(entry["told"])
        counts = int(entry.get("tries", 0)), int(entry.get("looks", 0))
        return Call(_text(job_id), listeners.get("webhook"), listeners.get("callback"), *counts)
    except (ValueError, AttributeError):  # one that makes no sense must not hold up those that were taken with it
        return Call(_text(job_id), None, None)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def wanted(message: Any, settings: Settings) -> Optional[Tuple[Optional[str], Optional[Dict[str, str]]]]:
    """The webhook and the callback that a job's `message` (its keyword arguments) asks for; None if neither.

    They count also if the rest of the message is wrong. Without POSE_WEBHOOK_SECRET no webhook is called.
    """
    if not isinstance(message, dict) or not (message.get("webhook") or message.get("callback")):
        return None
    try:
        job: Job = parse_job("-", {}, webhook=message.get("webhook"), callback=message.get("callback"))
    except InvalidRequest:
        return None  # which is what the job ends with
    webhook = job.webhook if settings.webhook_secret else None
    callback = job.callback.model_dump() if job.callback else None
    return (webhook, callback) if webhook or callback else None
