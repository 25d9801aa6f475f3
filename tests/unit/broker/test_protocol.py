"""Whatever client has written a message, the task gets the same job; and a refused one ends under its id."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import pytest
from celery.worker.strategy import hybrid_to_proto2
from kombu import Connection
from kombu.message import Message

from tests.support import ROOT
from tests.support.client_messages import CLIENTS, OTHER
from tests.support.hostile_messages import VALUES, message
from worker.broker import gate
from worker.broker.envelope import NO_MESSAGE, opened
from worker.contract import TASK
from worker.errors import InvalidRequest
from worker.jobs.message_id import job_id_in, job_id_in_envelope

MOST = 10_000
JOB = {"image": "/data/street.jpg", "options": {"max_people": 3}}

#: Messages of other clients, each as JSON.
RECORDED = sorted((ROOT.parent / "shared" / "data" / "messages").glob("*.json"))


@pytest.fixture(scope="module")
def channel() -> Iterator[Any]:
    """What makes kombu's messages of what lies on a queue."""
    with Connection("memory://") as connection:
        yield connection.channel()


def checked(channel: Any, raw: bytes) -> Any:
    """kombu's message, once the gate has let it through."""
    made = channel.message_to_python(opened(raw, MOST))
    gate.check(made, MOST, ())
    return made


def of_protocol_1(**fields: Any) -> Dict[str, Any]:
    body = {"task": TASK, "id": "mine", "args": [], "kwargs": dict(JOB), "retries": 0, **fields}
    return {**message(body=body), "headers": {}}


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_is_understood(channel: Any, client: str) -> None:
    made = checked(channel, CLIENTS[client]("mine", JOB["image"], JOB["options"]))
    assert (made.headers["id"], made.headers["task"]) == ("mine", TASK)
    args, kwargs, _ = json.loads(made.body)
    assert (args, kwargs) == ([], JOB)
    # So Celery takes it for protocol 2, whose body it does not read here.
    assert "args" not in made.payload
    assert made.payload == json.loads(made.body)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_messages_are_understood(channel: Any, path: Path) -> None:
    raw = path.read_bytes()
    assert job_id_in_envelope(json.loads(raw)) == "0b8c0f4e-7a52-4c1f-9a64-1d1f0c9f7a01"
    if path.stem == "hostile_errbacks":
        with pytest.raises(InvalidRequest, match="one of Celery's own"):
            checked(channel, raw)
        return
    made = checked(channel, raw)
    assert json.loads(made.body)[1]["image"] == "/data/images/street.jpg"
    assert made.headers["id"] == "0b8c0f4e-7a52-4c1f-9a64-1d1f0c9f7a01"


def test_a_message_of_RabbitMQ_has_its_body_as_it_is(channel: Any) -> None:
    """gocelery's has neither headers nor an encoding there."""
    body = json.dumps({"id": "mine", "task": TASK, "args": None, "kwargs": JOB, "retries": 0, "eta": None})
    made = Message(body.encode(), channel=channel, content_type="application/json", content_encoding=None)
    gate.check(made, MOST, ())
    assert (made.headers["id"], json.loads(made.body)[1]) == ("mine", JOB)


def test_what_protocol_1_embeds_is_kept_and_checked(channel: Any) -> None:
    follower = {"task": "a.b", "args": [], "kwargs": {}, "options": {"queue": "shop"}, "subtask_type": None}
    made = channel.message_to_python(opened(json.dumps(of_protocol_1(callbacks=[follower])).encode(), MOST))
    gate.check(made, MOST, ("shop",))
    assert json.loads(made.body)[2]["callbacks"] == [follower]
    with pytest.raises(InvalidRequest, match="POSE_CALLBACK_QUEUES"):
        checked(channel, json.dumps(of_protocol_1(callbacks=[follower])).encode())
    with pytest.raises(InvalidRequest, match="Celery's own"):
        checked(channel, json.dumps(of_protocol_1(errbacks=[{**follower, "task": "celery.map"}])).encode())


def test_the_gate_reads_protocol_1_as_Celery_does(channel: Any) -> None:
    """Celery's own way of taking apart what stands under headers of protocol 2."""
    raw = CLIENTS["under_headers"]("mine", JOB["image"], JOB["options"])
    unchecked = channel.message_to_python(opened(raw, MOST))
    (args, kwargs, embedded), *_ = hybrid_to_proto2(unchecked, unchecked.decode())
    assert ([*args], kwargs) == ([JOB["image"]], {"options": JOB["options"]})
    assert json.loads(checked(channel, raw).body)[2] == {**embedded, "chain": None}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task": "celery.backend_cleanup"}, "not known"),
        ({"task": None}, "'task'"),
        ({"id": 7}, "job_id"),
        ({"retries": "3"}, "'retries'"),
        ({"eta": "soon"}, "'eta'"),
        ({"eta": "2130-01-01T00:00:00+00:00"}, "eta"),
        ({"expires": 7}, "'expires'"),
        ({"taskset": ["a"]}, "'group'"),
        ({"group_index": "a"}, "'group_index'"),
        ({"args": "a"}, "list and an object"),
        ({"args": {}}, "list and an object"),
        ({"kwargs": []}, "list and an object"),
        ({"kwargs": {"self": 1}}, "self"),
        ({"callbacks": 7}, "tasks"),
        ({"chord": "a"}, "tasks"),
    ],
    ids=str,
)
def test_protocol_1_goes_through_the_same_checks(channel: Any, fields: Dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        checked(channel, json.dumps(of_protocol_1(**fields)).encode())


@pytest.mark.parametrize("name", ["task", "id", "args", "kwargs", "retries", "eta", "expires", "taskset", "chord"])
def test_a_field_of_any_value_is_let_through_or_refused(channel: Any, name: str) -> None:
    for value in VALUES:
        raw = json.dumps(of_protocol_1(**{name: value})).encode()
        with contextlib.suppress(InvalidRequest):
            made = checked(channel, raw)
            assert made.headers["task"] == TASK
            assert isinstance(json.loads(made.body)[1], dict)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (["a", {}, None], {}),
        (["a"], {"image": "b"}),
        (["a", {}], {"options": {}}),
    ],
)
def test_arguments_that_cannot_be_named_are_left_to_the_task_to_refuse(channel: Any, args: Any, kwargs: Any) -> None:
    made = checked(channel, json.dumps(message(body=[args, kwargs, {}])).encode())
    assert json.loads(made.body)[:2] == [args, kwargs]


def test_what_kombu_made_of_an_argument_is_written_again(channel: Any) -> None:
    moment = {"__type__": "datetime", "__value__": "2030-01-01T00:00:00"}
    made = checked(channel, json.dumps(message(body=[["a"], {"options": moment}, {}])).encode())
    assert json.loads(made.body)[1] == {"image": "a", "options": moment}


@pytest.mark.parametrize(
    ("parts", "job_id"),
    [
        ({"headers": {"id": "mine"}}, "mine"),
        ({"headers": {"id": "../mine"}}, None),  # it may not be used
        ({"headers": {"id": 7}}, None),
        ({"headers": []}, None),
        ({}, None),
        ({"body": '{"id": "mine"}'}, "mine"),
        ({"body": '{"id": "mine"}', "headers": {"id": "theirs"}}, "theirs"),
        ({"body": base64.b64encode(b'{"id": "mine"}').decode(), "properties": {"body_encoding": "base64"}}, "mine"),
        ({"body": "%%%a", "properties": {"body_encoding": "base64", "correlation_id": "mine"}}, "mine"),
        ({"body": "[" * 9000, "properties": {"correlation_id": "mine"}}, "mine"),
        ({"body": '{"id": "mine"}', "properties": {"correlation_id": OTHER}}, "mine"),
        ({"properties": {"correlation_id": ["mine"]}}, None),
        ({"body": 7, "properties": 7}, None),
    ],
)
def test_who_waits_for_a_refused_message_is_found_by_its_id(parts: Dict[str, Any], job_id: Optional[str]) -> None:
    # Its content type is of no kind that anybody reads.
    refused = opened(json.dumps({"properties": 7, **parts, "content-type": "x"}).encode(), MOST)
    if refused["content-type"] == NO_MESSAGE:
        assert job_id_in(refused["headers"]) == job_id
    else:
        assert job_id_in_envelope(refused) == job_id
