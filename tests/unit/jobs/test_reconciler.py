"""What is lost is sent again, once; what is only slow, or held by somebody, is not. On a real Redis."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from typing import Any, Callable, Iterator, List

import pytest
import redis
from kombu.exceptions import OperationalError

from tests.support.client_messages import CLIENTS
from worker.jobs import ledger as ledger_module
from worker.jobs import reconciler as module
from worker.jobs.ledger import Ledger, Message, ResultKey
from worker.jobs.reconciler import Reconciler
from worker.settings import Settings

WHERE = {"worker": "w@h", "device": "cpu", "pid": 1}


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def ledger(redis_client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(ledger_module, "_PATIENCE_S", 0)
    return Ledger(redis_client, prefix)


@pytest.fixture
def sent() -> List[str]:
    return []


@pytest.fixture
def reconciler(broker: str, ledger: Ledger, prefix: str, sent: List[str]) -> Iterator[Callable[[], Reconciler]]:
    settings = Settings(broker_url=broker, key_prefix=prefix, queue=prefix)
    made: List[Reconciler] = []

    def make() -> Reconciler:
        def send(job_id: str, _: Message, *, first: bool) -> None:
            assert first
            sent.append(job_id)

        made.append(Reconciler(ledger, settings, send, end=lambda *_: None, depth=lambda _: 0))
        return made[-1]

    yield make
    for one in made:
        assert one._broker is not None
        one._broker.close()


def _begin(ledger: Ledger, prefix: str, job_id: str) -> Any:
    message = Message(prefix, kwargs={"image": "/a.jpg"})
    return ledger.begin(job_id, "one", message, WHERE, 9, ResultKey(f"{prefix}:result", "started", 60))


def test_a_message_of_protocol_1_that_was_given_back_is_not_lost(
    ledger: Ledger, prefix: str, sent: List[str], redis_client: redis.Redis, reconciler: Callable[[], Reconciler]
) -> None:
    ledger.record("gopher", Message(prefix, kwargs={"image": "/a.jpg"}))
    redis_client.lpush(prefix, CLIENTS["gocelery"]("gopher", "/a.jpg", {}))
    time.sleep(0.01)
    assert reconciler().look() == 0
    assert sent == []


@pytest.mark.parametrize("exc", [ConnectionRefusedError("refused"), OperationalError("refused")], ids=repr)
def test_a_rabbitmq_that_refuses_connections_is_said_in_one_line(
    broker: str, ledger: Ledger, prefix: str, exc: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def depth(_: str) -> int:
        raise exc

    ledger.record("lost", Message(prefix, kwargs={"image": "/a.jpg"}))
    time.sleep(0.01)
    servers = {"broker_url": "amqp://guest@127.0.0.1:1//", "result_backend": broker}
    settings = Settings(**servers, key_prefix=prefix, queue=prefix)
    thread = Reconciler(ledger, settings, lambda *_, **__: None, end=lambda *_: None, depth=depth)
    with caplog.at_level(logging.WARNING):
        thread._every_s = 0.01
        thread.start()
        time.sleep(0.3)
        thread.stop()
        thread.join(10)
    [line] = [record for record in caplog.records if "reconciler" in record.message]
    assert "the broker does not answer (refused)" in line.message
    assert line.exc_info is None


def test_a_message_that_vanished_is_sent_again_and_one_that_is_held_is_not(
    ledger: Ledger, prefix: str, sent: List[str], redis_client: redis.Redis, reconciler: Callable[[], Reconciler]
) -> None:
    for job_id in ("vanished", "held", "queued", "later"):
        ledger.record(job_id, Message(prefix, kwargs={"image": job_id}))
    time.sleep(0.01)
    redis_client.hset(f"{prefix}:unacked", "tag", json.dumps([{"headers": {"id": "held"}}, "", prefix]))
    redis_client.zadd(f"{prefix}:unacked_index", {"tag": 1})
    redis_client.lpush(prefix, json.dumps({"headers": {"id": "queued"}}))
    redis_client.rpush(prefix, json.dumps({"headers": {"id": "somebody else's"}}))
    # At the head is one that the ledger has never heard of: nobody can tell who is behind it.
    assert reconciler().look() == 0
    redis_client.rpop(prefix)
    # What was given back comes to the head in any order.
    redis_client.rpush(prefix, json.dumps({"headers": {"id": "later"}}))
    for key in ("unacked", "unacked_index"):
        redis_client.expire(f"{prefix}:{key}", 60)
    redis_client.delete(f"{prefix}:reconciler")
    assert reconciler().look() == 1
    assert sent == ["vanished"]
    redis_client.delete(prefix)


def test_of_many_reconcilers_one_acts(
    ledger: Ledger, prefix: str, sent: List[str], reconciler: Callable[[], Reconciler]
) -> None:
    for number in range(30):
        ledger.record(str(number), Message(prefix, kwargs={"image": number}))
    time.sleep(0.01)
    many = [reconciler() for _ in range(6)]
    threads = [threading.Thread(target=one.look) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent) == sorted(map(str, range(30)))


def test_one_that_lost_its_lock_while_it_was_frozen_does_nothing(
    ledger: Ledger,
    prefix: str,
    sent: List[str],
    redis_client: redis.Redis,
    reconciler: Callable[[], Reconciler],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.record("j", Message(prefix, kwargs={"image": "j"}))
    time.sleep(0.01)
    found = ledger.suspects

    def freeze_after(*told: Any) -> Any:
        answer = found(*told)
        redis_client.set(f"{prefix}:reconciler", "another's", ex=60)
        return answer

    monkeypatch.setattr(ledger, "suspects", freeze_after)
    assert reconciler().look() == 0
    assert sent == []
    assert ledger.state("j") == "waiting"


@pytest.mark.parametrize("outage_s", [0.0, 0.4])
def test_after_an_outage_attempts_get_the_time_to_renew_their_leases(
    outage_s: float,
    ledger: Ledger,
    prefix: str,
    sent: List[str],
    reconciler: Callable[[], Reconciler],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_module, "LEASE_S", 0.01)
    monkeypatch.setattr(module, "LEASE_S", 0.5)
    monkeypatch.setattr(module, "_LOOK_S", 0.02)
    found = ledger.suspects
    assert _begin(ledger, prefix, "j").verdict == "begun"
    one = reconciler()
    begun = time.monotonic()

    def away(*told: Any) -> Any:
        if time.monotonic() - begun < outage_s:
            raise redis.ConnectionError("away")
        return found(*told)

    monkeypatch.setattr(ledger, "suspects", away)
    one.start()
    try:
        while not sent and time.monotonic() - begun < 20:
            time.sleep(0.01)
    finally:
        one.stop()
        one.join()
    assert sent[0] == "j"
    if outage_s:  # longer than half a lease, so they get another half
        assert time.monotonic() - begun >= outage_s + 0.25
    else:
        assert one._trusted_from == 0
