"""What lies beside a job lives as long as the job, within a bound for all."""

from __future__ import annotations

import time
import uuid
from typing import Iterator

import pytest
import redis

from worker.jobs.ledger import KEEP_S, Ledger, Message, ResultKey

pytestmark = pytest.mark.queue

MESSAGE = Message("q", kwargs={"image": "upload:0"})
RESULT = ResultKey("uploads-result", "{}", 60)


@pytest.fixture
def redis_client(broker: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker) as client:
        yield client


@pytest.fixture
def ledger(redis_client: redis.Redis) -> Iterator[Ledger]:
    prefix = f"test-{uuid.uuid4().hex}"
    yield Ledger(redis_client, prefix, dead_keep_s=1000)
    assert [key for key in redis_client.keys(f"{prefix}:*") if redis_client.ttl(key) < 0] == []


def _begin(ledger: Ledger, most: int = 3) -> str:
    return ledger.begin("a", "holder", MESSAGE, {}, most, RESULT).verdict


def _used(ledger: Ledger, redis_client: redis.Redis) -> int:
    return int(redis_client.get(ledger.keys.ours("uploads", "bytes")) or 0)


def test_it_is_there_until_the_job_has_ended(ledger: Ledger, redis_client: redis.Redis) -> None:
    assert ledger.upload("a", b"\xff\x00bytes", 100) == "kept"
    assert redis_client.ttl(ledger.keys.upload("a")) <= 3600
    ledger.record("a", MESSAGE)
    assert redis_client.ttl(ledger.keys.upload("a")) > 3600
    ((member, expiry),) = redis_client.zrange(ledger.keys.ours("uploads"), 0, -1, withscores=True)
    assert (member.partition(b":")[0], expiry > time.time() + 3700) == (b"7", True)
    assert _begin(ledger) == "begun"
    assert ledger.later("a", "holder", "away", 0.0, 3, RESULT) == "later"
    assert ledger.uploaded("a", 100) == b"\xff\x00bytes"
    assert ledger.uploaded("a", 3) == b"\xff\x00by"  # one more than the limit: enough to refuse it
    ledger.finish("a", "done", RESULT)
    assert (ledger.uploaded("a", 100), _used(ledger, redis_client)) == (b"", 0)


def test_a_dead_letter_keeps_it_and_a_revived_job_has_it(ledger: Ledger, redis_client: redis.Redis) -> None:
    ledger.upload("a", b"bytes", 100)
    ledger.record("a", MESSAGE)
    _begin(ledger, most=1)
    assert ledger.later("a", "holder", "away", 0.0, 1, RESULT) == "dead"
    ledger.finish("a", "dead", RESULT)
    assert 900 < redis_client.ttl(ledger.keys.upload("a")) <= 1000
    assert ledger.requeue("a") == MESSAGE
    assert redis_client.ttl(ledger.keys.upload("a")) > KEEP_S - 10
    assert ledger.uploaded("a", 100) == b"bytes"


@pytest.mark.parametrize("way", ["purge", "withdraw", "revoke"])
def test_it_goes_with_a_job_that_is_not_done(ledger: Ledger, redis_client: redis.Redis, way: str) -> None:
    ledger.upload("a", b"bytes", 100)
    ledger.record("a", MESSAGE)
    if way == "purge":
        _begin(ledger, most=1)
        ledger.later("a", "holder", "away", 0.0, 1, RESULT)
        ledger.finish("a", "dead", RESULT)
        assert ledger.purge("a")
    elif way == "withdraw":
        ledger.withdraw("a")
    else:
        ledger.finish("a", "revoked", RESULT)
    assert (ledger.uploaded("a", 100), _used(ledger, redis_client)) == (b"", 0)


def test_all_together_are_bounded(ledger: Ledger, redis_client: redis.Redis) -> None:
    assert ledger.upload("a", bytes(60), 100) == "kept"
    assert ledger.upload("b", bytes(60), 100) == "full"
    assert ledger.upload("a", bytes(70), 100) == "kept"  # in its own place
    redis_client.delete(ledger.keys.upload("a"))  # as if it had expired
    (member,) = redis_client.zrange(ledger.keys.ours("uploads"), 0, -1)
    redis_client.zadd(ledger.keys.ours("uploads"), {member: 1})
    assert ledger.upload("b", bytes(60), 100) == "kept"
    assert _used(ledger, redis_client) == 60


def test_that_of_a_job_that_was_recorded_stays(ledger: Ledger) -> None:
    ledger.upload("a", b"bytes", 100)
    ledger.record("a", MESSAGE)
    assert ledger.upload("a", b"other", 100) == "known"
    assert ledger.uploaded("a", 100) == b"bytes"
