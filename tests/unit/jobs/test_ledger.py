"""The job record, step by step, on a real Redis (6.2 and whatever Debian has) and on a real Valkey."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any, Iterator, List

import pytest
import redis
from click.testing import CliRunner

from tests.support import brokers
from worker.cli import dead
from worker.errors import InvalidRequest
from worker.jobs import ledger as module
from worker.jobs.ledger import Ledger, Message, ResultKey, token

MESSAGE = Message("q", kwargs={"image": "/a.jpg", "options": {}}, priority=3)
WHERE = {"worker": "w@h", "device": "cpu", "pid": 1}


@pytest.fixture(scope="module", params=["embedded", "redis", "valkey"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "embedded":
        yield request.getfixturevalue("broker")
        return
    program = brokers.valkey() if request.param == "valkey" else ""
    with brokers.redis_server(tmp_path_factory.mktemp("server"), program=program) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def redis_client(server: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server) as client:
        yield client


@pytest.fixture
def ledger(redis_client: redis.Redis) -> Iterator[Ledger]:
    prefix = f"test-{uuid.uuid4().hex}"
    yield Ledger(redis_client, prefix)
    # No key stays for ever.
    keys = redis_client.keys(f"{prefix}:*")
    assert [key for key in keys if redis_client.ttl(key) < 0] == []


@pytest.fixture
def result(redis_client: redis.Redis) -> Any:
    key = f"result-{uuid.uuid4().hex}"
    return lambda value: ResultKey(key, value, 60)


def _begin(ledger: Ledger, result: Any, holder: str = "one", most: int = 2) -> Any:
    return ledger.begin("j", holder, MESSAGE, WHERE, most, result("started"))


def test_a_job_that_goes_well(ledger: Ledger, result: Any, redis_client: redis.Redis) -> None:
    assert ledger.record("j", MESSAGE) == "new"
    assert ledger.state("j") == "waiting"
    assert _begin(ledger, result)[:2] == ("begun", 1)
    assert redis_client.get(result("").key) == b"started"
    assert ledger.finish("j", "done", result("people"))
    assert redis_client.get(result("").key) == b"people"
    assert ledger.state("j") == "done"
    assert "message" not in ledger.show("j")  # what has ended weighs little
    assert 0 < redis_client.ttl(ledger.keys.job("j")) <= result("").ttl_s  # and is kept as long as its result


def test_the_same_id_is_the_same_job_or_refused(ledger: Ledger) -> None:
    assert ledger.record("j", MESSAGE) == "new"
    assert ledger.record("j", Message("elsewhere", kwargs={"options": {}, "image": "/a.jpg"})) == "same"
    assert ledger.record("j", Message("q", kwargs={"image": "/b.jpg", "options": {}})) == "other"


def test_a_foreign_message_of_another_payload_is_no_message_of_the_job(
    ledger: Ledger, result: Any, redis_client: redis.Redis
) -> None:
    other = Message("q", kwargs={"image": "/b.jpg", "options": {}})
    ledger.record("j", MESSAGE)
    assert ledger.begin("j", "one", other, WHERE, 2, result("other")).verdict == "other"
    assert ledger.state("j") == "waiting"
    assert redis_client.get(result("").key) is None
    assert _begin(ledger, result).verdict == "begun"


def test_a_job_that_was_not_sent_was_never_there_unless_it_has_begun(ledger: Ledger, result: Any) -> None:
    ledger.record("j", MESSAGE)
    ledger.withdraw("j")
    assert ledger.state("j") is None
    _begin(ledger, result)
    ledger.withdraw("j")
    assert ledger.state("j") == "running"


def test_one_attempt_at_a_time(ledger: Ledger, result: Any) -> None:
    """A message that was delivered twice makes one attempt, also if the answer to its beginning was lost."""
    assert _begin(ledger, result, "one")[:2] == ("begun", 1)
    assert _begin(ledger, result, "one")[:2] == ("begun", 1)
    assert _begin(ledger, result, "two")[:2] == ("running", 1)


def test_the_first_outcome_stands(ledger: Ledger, result: Any, redis_client: redis.Redis) -> None:
    _begin(ledger, result)
    assert ledger.finish("j", "failed", result("first"))
    assert not ledger.finish("j", "done", result("second"))
    assert _begin(ledger, result).verdict == "failed"
    assert redis_client.get(result("").key) == b"first"


def test_a_refused_message_ends_an_id_that_nobody_has(ledger: Ledger, result: Any, redis_client: redis.Redis) -> None:
    assert ledger.refuse("j", result("refused"))
    assert redis_client.get(result("").key) == b"refused"
    assert redis_client.ttl(result("").key) > 0
    assert not ledger.refuse("j", result("again"))  # the first outcome stands
    assert redis_client.get(result("").key) == b"refused"
    assert ledger.state("j") is None


def test_a_refused_message_ends_nobody_elses_job(ledger: Ledger, result: Any, redis_client: redis.Redis) -> None:
    ledger.record("j", MESSAGE)
    assert not ledger.refuse("j", result("refused"))
    assert redis_client.get(result("").key) is None
    redis_client.set(result("").key, b"of another app's task, which keeps no record", ex=60)
    assert not ledger.refuse("another", result("refused"))
    assert redis_client.get(result("").key).startswith(b"of another")


def test_attempts_are_counted_and_then_the_job_is_dead(ledger: Ledger, result: Any, redis_client: redis.Redis) -> None:
    for number in (1, 2):
        assert _begin(ledger, result, str(number))[:2] == ("begun", number)
        ledger.release("j", str(number), "its slot was lost", counts=True)
    assert _begin(ledger, result, "3").verdict == "dead"
    assert _begin(ledger, result, "3").verdict == "dead"  # asked again, because the answer got lost
    assert _begin(ledger, result, "4").verdict == "running"  # one writes the dead letter
    assert ledger.finish("j", "dead", result("dead letter"))
    [(job_id, died)] = ledger.dead()
    assert job_id == "j"
    assert abs(died - time.time()) < 5
    record = ledger.show("j")
    assert record["attempt:2:end"].endswith("its slot was lost")
    assert not ledger.finish("j", "done", result("a zombie's"))
    assert not ledger.finish("j", "dead", result("another dead letter"))
    assert redis_client.get(result("").key) == b"dead letter"
    assert _begin(ledger, result, "5").verdict == "buried"


def test_who_dies_before_the_dead_letter_is_written_leaves_it_to_another(
    ledger: Ledger, result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_S", 0.05)
    mine = token()
    _begin(ledger, result)
    assert ledger.later("j", "one", "boo", 0, 1, result("retry")) == "dead"
    assert list(ledger.dead()) == []
    time.sleep(0.1)
    assert ledger.suspects(mine, []) == (["j"], [], {})
    assert ledger.claim("j", mine, "running") == MESSAGE
    assert _begin(ledger, result, "two", most=1).verdict == "dead"
    assert ledger.finish("j", "dead", result("dead letter"))
    assert ledger.show("j")["attempt:1:end"].endswith("boo")
    assert ledger.requeue("j") == MESSAGE
    assert _begin(ledger, result, "three", most=1)[:2] == ("begun", 1)


def test_a_failure_that_may_pass(ledger: Ledger, result: Any, redis_client: redis.Redis) -> None:
    _begin(ledger, result)
    assert ledger.later("j", "another", "boo", 0, 2, result("retry")) == "running"  # it is not its to give up
    assert ledger.later("j", "one", "boo", 0, 2, result("retry")) == "later"
    assert redis_client.get(result("").key) == b"retry"
    assert _begin(ledger, result, "two")[:2] == ("begun", 2)
    assert ledger.later("j", "two", "boo", 0, 2, result("retry"), counts=False) == "later"
    assert _begin(ledger, result, "three")[:2] == ("begun", 2)
    assert ledger.later("j", "three", "boo", 0, 2, result("retry")) == "dead"


def test_a_drain_costs_no_attempt(ledger: Ledger, result: Any) -> None:
    for _ in range(4):
        assert _begin(ledger, result)[:2] == ("begun", 1)
        assert ledger.release("j", "one", "its worker stopped", counts=False) == "waiting"


def test_a_person_revives_or_removes_what_is_dead(ledger: Ledger, result: Any, redis_client: redis.Redis) -> None:
    assert ledger.requeue("j") is None
    assert not ledger.purge("j")
    _begin(ledger, result)
    ledger.later("j", "one", "boo", 0, 1, result("retry"))
    ledger.finish("j", "dead", result("dead letter"))
    assert ledger.count() == {"running": 0, "later": 0, "parts": 0, "dead": 1}
    assert ledger.requeue("j") == MESSAGE
    assert redis_client.get(result("").key) is None
    assert _begin(ledger, result)[:2] == ("begun", 1)
    ledger.later("j", "one", "boo", 0, 1, result("retry"))
    ledger.finish("j", "dead", result("dead letter"))
    assert ledger.purge("j")
    assert ledger.state("j") is None
    assert list(ledger.dead()) == []


def test_dead_letters_are_kept_as_long_as_was_said_and_then_not_listed_either(
    redis_client: redis.Redis, result: Any
) -> None:
    ledger = Ledger(redis_client, f"test-{uuid.uuid4().hex}", dead_keep_s=1)
    for job_id, keep_s in (("old", 1), ("new", 60)):
        ledger._dead_keep_s = keep_s
        ledger.begin(job_id, "one", MESSAGE, WHERE, 2, result("started"))
        assert ledger.later(job_id, "one", "boo", 0, 1, result("retry")) == "dead"
        assert ledger.finish(job_id, "dead", result("dead letter"))
    assert [job_id for job_id, _ in ledger.dead()] == ["old", "new"]
    time.sleep(1.1)
    ledger._dead_keep_s = 1
    ledger.suspects(token(), [])
    assert list(ledger.dead()) == []
    assert ledger.state("old") is None


def test_what_is_lost_or_due_is_claimed_once(ledger: Ledger, result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = token(), token()
    monkeypatch.setattr(module, "LEASE_S", 0.05)
    _begin(ledger, result)
    time.sleep(0.1)
    assert ledger.suspects(mine, []) == (["j"], [], {})
    assert ledger.suspects(other, []) is None  # one acts at a time
    assert ledger.claim("j", other, "running") is None  # and who has lost the lock does nothing
    assert ledger.claim("j", mine, "running") == MESSAGE
    assert ledger.claim("j", mine, "running") is None
    assert _begin(ledger, result, "two")[:2] == ("begun", 2)
    ledger.later("j", "two", "boo", 0.05, 9, result("retry"))
    assert ledger.suspects(mine, []) == ([], [], {})
    time.sleep(0.1)
    assert ledger.suspects(mine, []) == ([], ["j"], {})
    assert ledger.claim("j", mine, "later") == MESSAGE


def test_of_those_that_were_lost_twice_one_is_tried_at_a_time(
    ledger: Ledger, result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a job that kills workers takes to its last attempt whatever is beside it each time."""
    mine = token()
    monkeypatch.setattr(module, "LEASE_S", 0.05)

    def begin(job_id: str) -> str:
        return ledger.begin(job_id, "h", MESSAGE, WHERE, 9, result("started")).verdict

    def lose() -> List[bool]:
        time.sleep(0.1)
        assert ledger.suspects(mine, []) is not None
        return [ledger.claim(job_id, mine, "running") is not None for job_id in ("guilty", "beside")]

    assert [begin("guilty"), begin("beside")] == ["begun", "begun"]
    assert lose() == [True, True]
    assert [begin("guilty"), begin("beside")] == ["begun", "begun"]
    assert lose() == [True, False]
    begin("guilty")
    ledger.finish("guilty", "failed", result("x"))
    assert lose() == [False, True]


def test_an_attempt_in_work_keeps_its_lease(ledger: Ledger, result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE_S", 0.3)
    _begin(ledger, result)
    for _ in range(4):
        time.sleep(0.1)
        ledger.renew("j", "one")
    assert ledger.suspects(token(), []) == ([], [], {})


def test_who_left_the_queue_and_did_not_begin_is_suspect(
    ledger: Ledger, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0)
    mine, waiting = token(), MESSAGE.list
    for job_id in ("taken", "head", "behind"):
        ledger.record(job_id, MESSAGE)
    for job_id in ("head", "behind"):
        redis_client.lpush(waiting, f'{{"body": "", "headers": {{"id": "{job_id}"}}}}')
    assert ledger.suspects(mine, [waiting]) == ([], [], {waiting: ["taken"]})
    redis_client.rpush(waiting, b"not JSON")  # nobody can tell who is behind it
    assert ledger.suspects(mine, [waiting]) == ([], [], {waiting: []})
    redis_client.delete(waiting)
    time.sleep(0.01)
    assert ledger.suspects(mine, [waiting]) == ([], [], {waiting: ["taken", "head", "behind"]})


def test_steps_of_many_at_once_leave_one_outcome(ledger: Ledger, result: Any, redis_client: redis.Redis) -> None:
    ledger.record("j", MESSAGE)
    begun: List[str] = []
    done: List[bool] = []

    def attempt(number: int) -> None:
        begun.append(_begin(ledger, result, str(number), most=99).verdict)
        done.append(ledger.finish("j", "done", result(str(number))))

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun.count("begun") == 1
    assert done.count(True) == 1


@pytest.mark.parametrize(
    "record", [{"tries": "x", "message": "{"}, {"tries": "99999999", "message": "[]"}, {"tries": "1"}]
)
def test_a_record_that_makes_no_sense_is_shown_all_the_same(
    ledger: Ledger, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, record: Any
) -> None:
    key, letters = ledger.keys.job("j"), ledger.keys.ours("dead")
    what = "x \x1b]0;taken over\x07"  # which a terminal would obey
    redis_client.hset(key, mapping={"attempt:1": b'nan {"\xff', "attempt:1:end": what, "list": what, **record})
    redis_client.zadd(letters, {"j": 1.0})
    monkeypatch.setattr(dead, "_ledger", lambda: ledger)
    done = CliRunner().invoke(dead.dead, ["list"])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "1 dead letter")
    assert CliRunner().invoke(dead.dead, ["show", "--json", "j"]).exit_code == 0
    assert "\x1b" not in done.output + CliRunner().invoke(dead.dead, ["show", "j"]).output
    if "message" in record:
        with pytest.raises(InvalidRequest, match="is damaged"):
            ledger.loads(record["message"])
    redis_client.delete(key, letters)
