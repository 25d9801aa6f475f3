"""A film in the ledger: it waits for the parts of its work, whatever becomes of each."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, Iterator, List

import pytest
import redis

from worker.jobs.ledger import Ledger, Message, ResultKey
from worker.video_contract import PART_TASK, VIDEO_TASK, Part

FILM = Message("q", kwargs={"video": "/a.mp4", "options": {}}, expires="2020-01-01T00:00:00+00:00", task=VIDEO_TASK)
OWN = replace(FILM, expires=None)
PARTS = [replace(OWN, task=PART_TASK, kwargs={"segment": number}) for number in range(3)]
WHERE = {"worker": "w@h", "device": "cpu", "pid": 1}


@pytest.fixture
def ledger(redis_client: redis.Redis) -> Iterator[Ledger]:
    prefix = f"test-{uuid.uuid4().hex}"
    yield Ledger(redis_client, prefix)
    keys = redis_client.keys(f"{prefix}:*")
    assert [key for key in keys if redis_client.ttl(key) < 0] == []  # no key stays for ever


@pytest.fixture
def redis_client(broker: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker) as client:
        yield client


def result(value: str) -> ResultKey:
    return ResultKey(f"result-{uuid.uuid4().hex}", value, 60)


def begin(ledger: Ledger, job_id: str, message: Message, holder: str = "one", most: int = 2) -> Any:
    return ledger.begin(job_id, holder, message, WHERE, most, result("started"))


def do(ledger: Ledger, number: int, outcome: str = "done", step: str = "look") -> None:
    part = Part("f", step, number).id
    assert begin(ledger, part, PARTS[number]).verdict == "begun"
    assert ledger.finish(part, outcome, result(outcome))


@pytest.fixture
def film(ledger: Ledger) -> Ledger:
    """A ledger with a film that has been cut into three parts."""
    ledger.record("f", FILM)
    assert begin(ledger, "f", FILM).step == ""
    assert ledger.await_parts("f", "one", OWN, "look", 60, PARTS)
    return ledger


def test_a_film_is_in_no_queue_until_all_its_parts_have_ended(film: Ledger) -> None:
    assert film.state("f") == "parts"
    assert film.resume("f") is None
    for number in (2, 0):
        do(film, number)
    where = film.where("f")
    assert (where.step, where.parts, where.ended_parts, where.failed_parts, where.frames) == ("look", 3, 2, 0, 60)
    assert film.resume("f") is None
    do(film, 1)
    assert film.resume("f") == OWN  # without its deadline, for it has been taken before that
    assert film.resume("f") is None  # once
    begun = begin(film, "f", FILM)
    assert (begun.verdict, begun.step, begun.attempts) == ("begun", "look", 1)


def test_its_parts_are_jobs_that_are_sent_again_when_they_get_lost(film: Ledger) -> None:
    assert film.part_states("f", "look", 3) == ["waiting"] * 3
    do(film, 0)
    begin(film, "f/look/1", PARTS[1])
    assert film.later("f/look/1", "one", "what may pass", 0.0, 2, result("retry")) == "later"
    assert film.part_states("f", "look", 3) == ["done", "later", "waiting"]
    suspects = film.suspects("token", ["q"])
    assert suspects is not None
    assert suspects[1] == ["f/look/1"]
    assert film.claim("f/look/1", "token", "later") == PARTS[1]


@pytest.mark.parametrize("outcome", ["failed", "dead"])
def test_a_part_that_fails_leaves_no_dead_letter_and_the_others_are_done(film: Ledger, outcome: str) -> None:
    do(film, 1, outcome)
    assert film.state("f/look/1") == "failed"
    assert list(film.dead()) == []
    assert film.resume("f") is None
    do(film, 0)
    do(film, 2)
    assert film.resume("f") == OWN
    assert film.where("f").failed_parts == 1


def test_a_film_that_is_done_again_keeps_what_is_done(film: Ledger) -> None:
    for number, outcome in enumerate(("done", "failed", "done")):
        do(film, number, outcome)
    film.resume("f")
    begin(film, "f", FILM)
    film.finish("f", "failed", result("failed"))
    assert film.requeue("f") == OWN
    assert begin(film, "f", FILM).step == ""  # it is planned anew
    assert film.await_parts("f", "one", OWN, "look", 60, PARTS)
    assert film.part_states("f", "look", 3) == ["done", "waiting", "done"]
    do(film, 1)
    assert film.resume("f") == OWN


def test_what_is_done_with_another_plan_is_not_kept(film: Ledger) -> None:
    for number in range(3):
        do(film, number)
    film.resume("f")
    begin(film, "f", FILM)
    film.finish("f", "failed", result("failed"))
    film.requeue("f")
    begin(film, "f", FILM)
    others: List[Message] = [replace(one, kwargs={"segment": -1}) for one in PARTS]
    assert film.await_parts("f", "one", OWN, "look", 60, others)
    assert film.part_states("f", "look", 3) == ["waiting"] * 3


def test_the_parts_of_a_film_that_was_cancelled_are_not_worked_on(film: Ledger) -> None:
    assert film.finish("f", "revoked", result("revoked"))
    assert begin(film, "f/look/0", PARTS[0]).verdict == "superfluous"
    assert film.state("f/look/0") is None
    assert film.resume("f") is None


def test_a_part_that_no_film_has_is_not_worked_on(film: Ledger) -> None:
    for forged in ("f/look/7", "f/draw/0", "other/look/0"):
        assert begin(film, forged, PARTS[0]).verdict == "superfluous"
        assert film.state(forged) is None
    assert begin(film, "f/look/0", PARTS[1]).verdict == "other"  # with something else to do


def test_a_second_message_of_a_film_that_waits_for_its_parts_is_superfluous(film: Ledger) -> None:
    assert begin(film, "f", FILM, holder="two").verdict == "parts"
    assert not film.await_parts("f", "two", OWN, "look", 60, PARTS)
    assert film.state("f") == "parts"


def test_another_step_has_parts_of_its_own(film: Ledger) -> None:
    for number in range(3):
        do(film, number)
    film.resume("f")
    begin(film, "f", FILM)
    assert film.await_parts("f", "one", OWN, "draw", 60, PARTS[:2])
    assert begin(film, "f/look/0", PARTS[0]).verdict == "superfluous"  # sent again late
    for number in range(2):
        do(film, number, step="draw")
    assert film.resume("f") == OWN
    assert begin(film, "f", FILM).step == "draw"
