"""Many jobs at once: recorded before they are sent, in as few round trips as there can be."""

from __future__ import annotations

import itertools
import uuid
from typing import Any, Iterator, List, Tuple

import pytest
import redis

from worker.client import PoseClient
from worker.errors import BrokerUnavailable, InvalidRequest

pytestmark = pytest.mark.queue


@pytest.fixture
def client(broker: str) -> Iterator[PoseClient]:
    with PoseClient(broker, queue=f"many-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
def redis_client(broker: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker) as client:
        yield client


def _trips(monkeypatch: pytest.MonkeyPatch) -> List[Tuple[str, int]]:
    """What goes to Redis from here on: commands, and pipelines with how many."""
    trips: List[Tuple[str, int]] = []
    send, execute = redis.Redis.execute_command, redis.client.Pipeline.execute

    def one(self: Any, *words: Any, **options: Any) -> Any:
        if not isinstance(self, redis.client.Pipeline):
            trips.append((str(words[0]), 1))
        return send(self, *words, **options)

    def many(self: Any, *words: Any, **options: Any) -> Any:
        trips.append(("pipeline", len(self.command_stack)))
        return execute(self, *words, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", one)
    monkeypatch.setattr(redis.client.Pipeline, "execute", many)
    return trips


def test_a_hundred_are_recorded_in_one_round_trip_and_sent_in_another(
    client: PoseClient, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.submit("first.jpg")  # connects, and loads the scripts
    trips = _trips(monkeypatch)
    jobs = client.submit_many((f"{number}.jpg" for number in range(250)), max_people=3)
    monkeypatch.undo()
    assert len(trips) <= 12, trips
    assert [job.image.rsplit("/", 1)[1] for job in jobs] == [f"{number}.jpg" for number in range(250)]
    assert redis_client.llen(client._queue.name) == 251
    assert all(client._ledger.state(job.id) == "waiting" for job in jobs)


def test_scripts_that_redis_has_lost_are_loaded(client: PoseClient, redis_client: redis.Redis) -> None:
    redis_client.script_flush()
    jobs = client.submit_many(["a.jpg", "b.jpg", "c.jpg"])
    assert [client._ledger.state(job.id) for job in jobs] == ["waiting"] * 3
    assert redis_client.llen(client._queue.name) == 3


def test_what_could_not_be_sent_was_never_there(
    client: PoseClient, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue's key is no list."""
    redis_client.set(client._queue.name, "x", ex=60)
    before = set(redis_client.keys("pose:job:*"))
    with pytest.raises(BrokerUnavailable):
        client.submit_many(["a.jpg", "b.jpg"])
    assert set(redis_client.keys("pose:job:*")) == before


def test_what_is_wrong_is_said_before_its_hundred_is_sent(client: PoseClient, redis_client: redis.Redis) -> None:
    with pytest.raises(InvalidRequest):
        client.submit_many(["a.jpg", "b.jpg"], priority=99)
    with pytest.raises(InvalidRequest, match="job_id"):
        client.submit_many(["a.jpg", "b.jpg"], job_id="one")
    assert client.submit_many([]) == []
    assert redis_client.llen(client._queue.name) == 0


def test_a_generator_without_an_end_is_taken_as_far_as_it_is_needed(client: PoseClient) -> None:
    """`map` holds so many jobs as are open, however many paths there are."""
    taken = itertools.count()
    paths = (f"{next(taken)}.jpg" for _ in itertools.count())
    with pytest.raises(TimeoutError):
        next(client.map(paths, in_flight=5, timeout=0.2))
    assert next(taken) == 5
