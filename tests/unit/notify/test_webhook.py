"""What is told of a job's end, how it is signed, and that it is told in the end, whatever the receiver does."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple

import pytest
import redis

from tests.support import wait_until
from tests.support.brokers import need
from tests.support.web import Site, answer, site
from worker.contract import parse_job, without_query
from worker.errors import InvalidRequest
from worker.notify import notifier
from worker.notify import pending as pending_module
from worker.notify.notifier import Notifier
from worker.notify.pending import Pending
from worker.notify.webhook import check_wanted, payload, signature, verify
from worker.settings import read_settings

pytestmark = pytest.mark.queue

SECRET = "a secret of the tests' own"
SETTINGS = read_settings(
    {
        "POSE_WEBHOOK_SECRET": SECRET,
        "POSE_PRIVATE_HOSTS": "localhost",
        "POSE_RETRY_BASE_S": "0.05",
        "POSE_URL_TIMEOUT_S": "1",
        "POSE_CALLBACK_QUEUES": "shop,q,celery",
    }
)
DONE = {"status": "SUCCESS", "result": {"people": []}}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Site]:
    with site() as running:
        yield running


@pytest.fixture
def pending(redis_client: redis.Redis) -> Pending:
    return Pending(redis_client, f"test-{uuid.uuid4().hex[:8]}")


Start = Callable[..., List[Tuple[str, str, Mapping[str, Any], str]]]


@pytest.fixture
def start(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Run a notifier of which every job has ended well; gives the tasks that it sends."""
    monkeypatch.setattr(notifier, "_LOOK_S", 0.02)
    running: List[Notifier] = []

    def begin(outcome: Callable[[str], Mapping[str, Any]] = lambda _: DONE) -> Any:
        sent: List[Any] = []
        running.append(Notifier(pending, SETTINGS, outcome, lambda *task: sent.append(task)))
        running[-1].start()
        return sent

    yield begin
    for one in running:
        one.stop()


def test_a_call_is_signed_and_its_receiver_can_tell(receiver: Site, pending: Pending, start: Start) -> None:
    receiver.routes["/done"] = answer(204)
    pending.add("job-1", f"{receiver.url}/done?key=1", None)
    pending.ring("job-1")
    start()
    (call,) = wait_until(lambda: [one for one in receiver.seen if one.path == "/done?key=1"])
    told = verify(SECRET, call.headers, call.body)
    assert told == {"job_id": "job-1", "state": "SUCCESS", "result": {"people": []}}
    assert call.headers["Content-Type"] == "application/json"
    for secret, headers, body in (
        ("another secret", call.headers, call.body),
        (SECRET, call.headers, call.body.replace(b"job-1", b"job-2")),
        (SECRET, {**call.headers, "Pose-Timestamp": str(int(time.time()) - 3600)}, call.body),
        (SECRET, {**call.headers, "Pose-Timestamp": str(int(time.time()) + 9)}, call.body),
        (SECRET, {}, call.body),
    ):
        with pytest.raises(PermissionError):
            verify(secret, headers, body)


def test_the_signature_is_hmac_sha256_of_timestamp_and_body() -> None:
    command = [need("openssl", "openssl"), "dgst", "-sha256", "-hmac", "key", "-r"]
    done = subprocess.run(command, input=b"1700000000.{}", capture_output=True, check=True)
    assert signature("key", "1700000000", b"{}") == done.stdout.split()[0].decode()


def test_a_receiver_that_fails_is_tried_again_until_it_does_not(receiver: Site, pending: Pending, start: Start) -> None:
    answers = iter([answer(500), answer(302, Location="http://localhost:1/"), answer(200)])
    receiver.routes["/flaky"] = lambda handler: next(answers)(handler)
    pending.add("job-2", f"{receiver.url}/flaky", None)
    pending.ring("job-2")
    start()
    wait_until(lambda: len([one for one in receiver.seen if one.path == "/flaky"]) == 3)
    wait_until(lambda: pending.claim(10, 0) == [])
    pending.add("job-2", f"{receiver.url}/flaky", None)  # its message came once more
    pending.ring("job-2")
    time.sleep(0.2)
    assert len([one for one in receiver.seen if one.path == "/flaky"]) == 3


def test_a_slow_receiver_does_not_hold_up_the_others(receiver: Site, pending: Pending, start: Start) -> None:
    receiver.routes["/slow"] = lambda _: time.sleep(1.5)
    receiver.routes["/quick"] = answer(200)
    with site() as other:
        other.routes["/quick"] = answer(200)
        for number in range(12):
            pending.add(f"slow-{number}", f"{receiver.url}/slow", None)
            pending.ring(f"slow-{number}")
        start()
        wait_until(lambda: any(one.path == "/slow" for one in receiver.seen))
        pending.add("quick", f"{other.url}/quick", None)
        pending.ring("quick")
        wait_until(lambda: other.seen)
        assert len([one for one in receiver.seen if one.path == "/slow"]) < 12  # not behind all of them
        calling = [thread for thread in threading.enumerate() if thread.name == "webhook"]
        assert calling
        assert all(thread.daemon for thread in calling)  # a worker that stops waits for none of them


def test_an_entry_that_is_dealt_with_keeps_no_url(receiver: Site, pending: Pending, start: Start) -> None:
    receiver.routes["/done"] = answer(200)
    url = f"{receiver.url}/done?token=s3cret"
    pending.add("kept", url, {"task": "shop.posed", "queue": "shop"})
    pending.ring("kept")
    start()
    entry = f"{pending._entry}kept"
    wait_until(lambda: pending._client.hget(entry, "done"))
    pending.add("kept", url, None)  # its message came once more
    assert b"s3cret" not in b"".join(pending._client.hvals(entry))


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/no", "http://u:p@localhost:{port}/no"])
def test_what_must_not_be_called_is_given_up(receiver: Site, pending: Pending, start: Start, url: str) -> None:
    receiver.routes["/no"] = answer(200)
    pending.add("job-3", url.format(port=receiver.url.rsplit(":", 1)[1]), None)
    pending.ring("job-3")
    start()
    entry = f"{pending._entry}job-3"
    wait_until(lambda: pending._client.hget(entry, "done"))
    assert not [one for one in receiver.seen if one.path == "/no"]


def test_an_entry_that_makes_no_sense_does_not_hold_up_the_others(
    receiver: Site, pending: Pending, start: Start, redis_client: redis.Redis
) -> None:
    due, entry = pending._due, pending._entry
    receiver.routes["/z"] = answer(200)
    pending.add("z", f"{receiver.url}/z", None)
    redis_client.set(f"{entry}a", "no hash", ex=60)
    for name, fields in {"b": {"told": "{"}, "c": {"told": "[]"}, "d": {"told": "{}", "tries": "x"}}.items():
        redis_client.hset(f"{entry}{name}", mapping=fields)
        redis_client.expire(f"{entry}{name}", 60)
    redis_client.hset(f"{entry}e", "told", json.dumps({"webhook": "http://[::1"}))
    redis_client.zadd(due, dict.fromkeys("abcdez", 1.0))
    start()
    wait_until(lambda: redis_client.zcard(due) == 0)
    assert redis_client.hget(f"{entry}z", "done") == b"1"


def test_a_receiver_that_is_gone_is_not_called_again(receiver: Site, pending: Pending, start: Start) -> None:
    receiver.routes["/gone"] = answer(410)
    pending.add("job-4", f"{receiver.url}/gone", None)
    pending.ring("job-4")
    start()
    wait_until(lambda: pending._client.hget(f"{pending._entry}job-4", "done"))
    assert len([one for one in receiver.seen if one.path == "/gone"]) == 1


def test_a_task_is_sent_instead_or_as_well(pending: Pending, start: Start) -> None:
    pending.add("job-5", None, {"task": "shop.posed", "queue": "shop"})
    pending.ring("job-5")
    sent = start()
    wait_until(lambda: sent)
    told = {"job_id": "job-5", "state": "SUCCESS", "result": {"people": []}}
    assert sent == [("shop.posed", "shop", told, "job-5.ended")]


@pytest.mark.parametrize(
    "callback",
    [{"task": "shop.posed", "queue": "other"}, {"task": "celery.group", "queue": "shop"}, {"queue": "shop"}],
)
def test_a_task_that_may_not_be_sent_is_not(pending: Pending, start: Start, callback: Dict[str, str]) -> None:
    """Clients write entries themselves, and so can strangers."""
    pending.add("job-7", None, callback)
    pending.ring("job-7")
    sent = start()
    wait_until(lambda: pending._client.hget(f"{pending._entry}job-7", "done"))  # it was looked at, and dealt with
    assert sent == []


def test_a_job_that_is_done_once_more_is_told_of_once_more(pending: Pending, start: Start) -> None:
    pending.add("job-9", None, {"task": "shop.posed"})
    pending.ring("job-9")
    sent = start()
    wait_until(lambda: pending._client.hget(f"{pending._entry}job-9", "done"))
    pending.reopen("job-9")
    pending.add("job-9", None, {"task": "shop.posed"})
    pending.ring("job-9")
    wait_until(lambda: len(sent) == 2)


def test_an_end_that_nobody_rang_for_is_found_and_one_that_did_not_come_is_waited_for(
    pending: Pending, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "LOOK_AGAIN_S", (0.1, 0.2))
    monkeypatch.setattr("worker.notify.notifier.LOOK_AGAIN_S", (0.1, 0.2))
    outcomes: List[Any] = [{}, {"status": "STARTED", "result": {}}, DONE]
    pending.add("job-6", None, {"task": "shop.posed"})
    sent = start(lambda _: outcomes.pop(0))
    wait_until(lambda: sent)
    assert outcomes == []


def test_every_key_expires(pending: Pending) -> None:
    pending.add("job-7", "https://example.org", None)
    pending.ring("job-7")
    pending.claim(1, 1)
    pending.done("job-7")
    pending.add("job-8", "https://example.org", None)
    keys = list(pending._client.scan_iter(f"{pending._due.rpartition(':')[0]}:*"))
    assert len(keys) == 3
    assert all(pending._client.ttl(key) > 0 for key in keys)


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        (
            {"status": "FAILURE", "result": {"exc_type": "ImageNotFound", "exc_message": ["a is not there"]}},
            {"state": "FAILURE", "error": {"type": "ImageNotFound", "message": "a is not there"}},
        ),
        (
            {"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["expired"]}},
            {"state": "REVOKED", "error": {"type": "JobCancelled", "message": "expired"}},
        ),
    ],
)
def test_what_is_told_of_other_ends(meta: Dict[str, Any], told: Dict[str, Any]) -> None:
    assert payload("j", meta) == {"job_id": "j", **told}


def test_without_a_secret_webhooks_are_refused() -> None:
    job = parse_job("a.jpg", {}, webhook="https://example.org/")
    check_wanted(job, SETTINGS)
    with pytest.raises(InvalidRequest, match="POSE_WEBHOOK_SECRET"):
        check_wanted(job, read_settings({}))


def test_what_may_be_secret_is_not_shown() -> None:
    assert without_query("https://u:p@example.org:8443/a?token=x#y") == "https://example.org:8443/a"
    assert SECRET not in repr(SETTINGS)
