"""What looks at messages before Celery does: each is let through, or refused in words that say what is wrong."""

from __future__ import annotations

import json
import zlib
from typing import Any, Dict, Iterator, List, Optional

import pytest
from kombu import Connection

from tests.support.hostile_messages import arguments, message
from worker.broker import gate
from worker.broker.envelope import opened
from worker.contract import TASK
from worker.errors import InvalidRequest

#: Bytes that a message may have here.
MOST = 10_000

GOOD = arguments()


@pytest.fixture(scope="module")
def channel() -> Iterator[Any]:
    """What makes kombu's messages of what lies on a queue."""
    with Connection("memory://") as connection:
        yield connection.channel()


def looked_at(channel: Any, raw: bytes) -> Any:
    """kombu's message, once the gate has let it through.

    Raises:
        InvalidRequest: it was refused.
    """
    made = channel.message_to_python(opened(raw, MOST))
    gate.check(made, MOST, ("celery",))
    return made


def refusal(channel: Any, raw: bytes) -> Optional[str]:
    """Why the message that lies in a Redis list as `raw` is refused; None if it is not."""
    try:
        looked_at(channel, raw)
    except InvalidRequest as exc:
        return str(exc)
    return None


def _with(**properties: Any) -> Dict[str, Any]:
    """A proper message, but for these properties."""
    fields = message(body=GOOD)
    fields["properties"].update(properties)
    return fields


def _headers(**headers: Any) -> Dict[str, Any]:
    return message(body=GOOD, headers=headers)


def _embedding(**embedded: Any) -> Dict[str, Any]:
    return message(body=[[], {"image": "a"}, embedded])


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


SIGNATURE = {
    "task": "a.b",
    "args": [1],
    "kwargs": {},
    "options": {"queue": "celery", "task_id": "x"},
    "subtask_type": None,
}

LET_THROUGH = [
    pytest.param(message(body=GOOD), id="as a client sends it"),
    pytest.param(message(body=GOOD, encode=False), id="a body that is not base64, as other brokers have it"),
    pytest.param(message(body=[["a"], {}, {}]), id="arguments by position"),
    pytest.param(message(body=[["a"] * 5, {}, {}]), id="too many of them: the task itself says what it takes"),
    pytest.param(message(body=[None, None, None]), id="no arguments, and null for each kind of them"),
    pytest.param(_with(delivery_info=None), id="no delivery_info"),
    pytest.param(_with(delivery_info={}), id="a delivery_info of nothing"),
    pytest.param(message(body=[[], {}, None]), id="nothing embedded"),
    pytest.param(message("@a.B_c:d-9", GOOD), id="an id of every character that one may have"),
    pytest.param(message("x" * 200, GOOD), id="the longest id"),
    pytest.param(message(body=GOOD, **{"content-encoding": "UTF-8"}), id="an encoding's name in capitals"),
    pytest.param(message(body=GOOD, **{"content-encoding": "us-ascii"}), id="ASCII is UTF-8"),
    pytest.param(message(body=GOOD, **{"content-encoding": None}), id="no encoding named"),
    pytest.param(_with(priority=9), id="a priority"),
    pytest.param(_with(priority=None), id="no priority"),
    pytest.param(_headers(traceparent="00-a-b-01", other={"a": [1]}), id="headers that Celery does not know"),
    pytest.param(_headers(expires="2130-01-01T00:00:00"), id="a time without a zone"),
    pytest.param(_headers(eta="2020-01-01T00:00:00+00:00"), id="a time that has come"),
    pytest.param(_headers(eta=None, group=None, retries=0), id="headers that are null"),
    pytest.param(_headers(root_id="a", parent_id="b", group="c", group_index=1), id="a member of a group"),
    pytest.param(_embedding(callbacks=[SIGNATURE]), id="a task that follows; test_embedded.py has more"),
    pytest.param(message(body=[[], {"options": _nested(gate.MAX_DEPTH - 3)}, {}]), id="as deep as is allowed"),
]

#: A message, and words of its refusal.
REFUSED = [
    # Bytes that are no message.
    pytest.param(b"", "not JSON", id="nothing"),
    pytest.param(b"\xff\xfe\x00", "not JSON", id="no text"),
    pytest.param(b'{"properties": {', "not JSON", id="cut off"),
    pytest.param(b"[" * 9_000, "not JSON", id="nested until the parser gives up"),
    pytest.param(b"7", "no Celery message", id="a number"),
    pytest.param(b"[{}]", "no Celery message", id="a list"),
    pytest.param(b"{}", "no Celery message", id="an object of nothing"),
    pytest.param(json.dumps(message(body=arguments(image="a" * MOST))).encode(), "more than 10000", id="too large"),
    pytest.param(b"a" * (17 << 20), "more than 10000", id="too large to be read at all"),
    pytest.param(
        {**message(), "headers": {"__type__": "uuid", "__value__": 7}}, "not JSON", id="a type of kombu's JSON"
    ),
    # The envelope.
    pytest.param({**message(body=GOOD), "properties": None}, "no properties", id="no properties"),
    pytest.param({**message(body=GOOD), "headers": [1]}, "no headers", id="headers that are a list"),
    pytest.param({**message(), "body": 7}, "body is no string", id="a body that is a number"),
    pytest.param(_with(delivery_info=[]), "delivery_info", id="a delivery_info that is a list"),
    pytest.param(
        _with(delivery_info={"exchange": "", "routing_key": 7}), "delivery_info", id="a routing key of a number"
    ),
    pytest.param(_with(priority="high"), "priority", id="a priority in words"),
    pytest.param(_with(priority=True), "priority", id="a priority that is a truth value"),
    pytest.param(_with(body_encoding="rot13"), "not base64", id="an encoding that nobody knows"),
    pytest.param({**message(), "body": "%%%a"}, "not base64", id="a body that is not base64, though it says so"),
    # What it is written in.
    pytest.param(message(body=GOOD, **{"content-type": "application/x-python-serialize"}), "JSON", id="pickle"),
    pytest.param(message(body=GOOD, **{"content-type": "application/data"}), "JSON", id="signed"),
    pytest.param(message(body=GOOD, **{"content-type": 7}), "JSON", id="a content type that is a number"),
    pytest.param(message(body=GOOD, **{"content-encoding": "utf-16"}), "utf-8", id="another encoding"),
    pytest.param(message(body=GOOD, **{"content-encoding": "zlib_codec"}), "utf-8", id="an encoding that unpacks"),
    # Who it is, and for whom.
    pytest.param({**message(body=GOOD), "headers": None}, "job_id", id="headers of null"),
    pytest.param({**message(body=GOOD), "headers": {}}, "job_id", id="headers of nothing"),
    pytest.param(message(None, GOOD), "job_id", id="no id"),
    pytest.param(message("", GOOD), "job_id", id="an empty id"),
    pytest.param(message(7, GOOD), "job_id", id="an id that is a number"),
    pytest.param(message("x" * 201, GOOD), "job_id", id="an id that is too long"),
    pytest.param(message("../../etc", GOOD), "job_id", id="an id that is a path"),
    pytest.param(message("a\nb", GOOD), "job_id", id="an id of two lines"),
    pytest.param(message("é", GOOD), "job_id", id="an id that is not ASCII"),
    pytest.param(_headers(task="celery.backend_cleanup"), "not known", id="a task of Celery's own"),
    pytest.param(_headers(task=TASK.upper()), "not known", id="almost our task"),
    pytest.param(_headers(task=None), "'task'", id="no task"),
    pytest.param(_headers(task=["a"]), "'task'", id="a task that is a list"),
    # Headers on which Celery acts.
    pytest.param(_headers(retries="3"), "'retries'", id="a count in a string"),
    pytest.param(_headers(retries=1.5), "'retries'", id="a count of halves"),
    pytest.param(_headers(group=["a"]), "'group'", id="a group that is a list"),
    pytest.param(_headers(root_id={}), "'root_id'", id="a root that is an object"),
    pytest.param(_headers(eta="soon"), "'eta'", id="a time in words"),
    pytest.param(_headers(eta=7), "'eta'", id="a time that is a number"),
    pytest.param(_headers(expires="2030-99-99T00:00:00"), "'expires'", id="a month that is none"),
    pytest.param(_headers(eta="9999-12-31T23:59:59-14:00"), "no calendar", id="a time that no other zone has"),
    pytest.param(_headers(expires="0001-01-01T00:00:00+14:00"), "no calendar", id="and one before all time"),
    pytest.param(_headers(other=_nested(gate.MAX_DEPTH + 1)), "nested", id="headers that are too deep"),
    pytest.param(_with(other=_nested(gate.MAX_DEPTH + 1)), "nested", id="properties that are too deep"),
    # The body.
    pytest.param(message(body=b""), "body", id="an empty body"),
    pytest.param(message(body=b"{"), "cannot be read", id="a body that is not JSON"),
    pytest.param(message(body=b"\xff\xfe[]"), "cannot be read", id="a body that is not UTF-8"),
    pytest.param(message(body=b"[" * 5_000), "cannot be read", id="a body nested until the parser gives up"),
    pytest.param(message(body=None), "list of arguments", id="a body of null"),
    pytest.param(message(body="7"), "list of arguments", id="a body that is a number"),
    pytest.param(message(body={"image": "a"}), "list of arguments", id="a body that is an object"),
    pytest.param(message(body=[[], {}]), "list of arguments", id="a body of two"),
    pytest.param(message(body=[[], {}, {}, {}]), "list of arguments", id="a body of four"),
    pytest.param(message(body=[{}, {}, {}]), "begin with a list and an object", id="arguments that are an object"),
    pytest.param(message(body=[[], [], {}]), "begin with a list and an object", id="keyword arguments that are a list"),
    pytest.param(message(body=[["a"], "a", {}]), "begin with a list and an object", id="keyword arguments of text"),
    pytest.param(message(body=[[], {"self": 1}, {}]), "self is not an argument", id="the task itself"),
    pytest.param(
        message(body=[[], {"options": _nested(gate.MAX_DEPTH)}, {}]), "nested", id="arguments that are too deep"
    ),
    # What is embedded.
    pytest.param(message(body=[[], {}, "chain"]), "embeds", id="embedded text"),
    pytest.param(_embedding(loglevel=1), "embeds", id="what Celery does not embed"),
    pytest.param(_embedding(callbacks=7), "tasks", id="callbacks that are a number"),
    pytest.param(_embedding(callbacks=[{**SIGNATURE, "task": "celery.map"}]), "Celery's own", id="what runs others"),
    pytest.param(_embedding(errbacks=[None]), "tasks", id="a callback of null"),
    pytest.param(_embedding(chain=["a.b"]), "tasks", id="a task by its name alone"),
    pytest.param(_embedding(chord=7), "tasks", id="a chord that is a number"),
    pytest.param(_embedding(callbacks=[{}]), "tasks", id="a task without a name"),
    pytest.param(_headers(eta="2130-01-01T00:00:00+00:00"), "eta", id="a time far ahead, to which it would be held"),
    pytest.param(_headers(eta="2130-01-01T00:00:00"), "eta", id="the same without a zone"),
]


@pytest.mark.parametrize("fields", LET_THROUGH)
def test_what_is_a_job_is_let_through(channel: Any, fields: Dict[str, Any]) -> None:
    assert refusal(channel, json.dumps(fields).encode()) is None


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_is_none_is_refused_in_words_that_say_why(channel: Any, fields: Any, words: str) -> None:
    why = refusal(channel, fields if isinstance(fields, bytes) else json.dumps(fields).encode())
    assert why is not None
    assert words in why
    assert len(why) < 1000
    assert why.isprintable()


def test_what_is_compressed_is_not_unpacked(channel: Any) -> None:
    """A few kilobytes may stand for gigabytes."""
    gate.forbid_compression()
    bomb = message(body=zlib.compress(bytes(1_000_000), 9), headers={"compression": "application/x-gzip"})
    assert "compressed" in str(refusal(channel, json.dumps(bomb).encode()))


#: Headers that lift a worker's limits, or say what Celery sets itself.
LIFTING: List[str] = ["timelimit", "ignore_result", "stamped_headers", "called_directly", "is_eager", "delivery_info"]
LIFTING += ["callbacks", "errbacks", "chain", "chord", "reply_to", "_children", "update"]


@pytest.mark.parametrize("name", LIFTING)
def test_what_the_worker_decides_itself_is_taken_out(channel: Any, name: str) -> None:
    fields = message(body=GOOD, headers={name: [1e9, 1e9], "traceparent": "kept"})
    headers = looked_at(channel, json.dumps(fields).encode()).headers
    assert name not in headers
    assert headers["traceparent"] == "kept"


def test_a_deep_value_is_measured_without_recursion() -> None:
    assert gate.too_deep(_nested(100_000))
    assert not gate.too_deep(_nested(gate.MAX_DEPTH + 1))  # the outermost is in no other
    assert gate.too_deep(_nested(gate.MAX_DEPTH + 2))
    assert gate.too_deep({"a": {"b": {}}}, most=1)
