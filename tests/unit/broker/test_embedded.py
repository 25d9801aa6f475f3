"""What a message may have sent in the worker's name: what Celery's canvas writes, for listed queues."""

from __future__ import annotations

from typing import Any, Dict, List

import celery
import pytest
from celery import chain, chord, group

from worker.broker.embedded import MAX_TASKS, check_embedded
from worker.errors import InvalidRequest

LISTED = ("celery", "shop")
APP = celery.Celery("shop", set_as_current=False)


def sig(name: str = "shop.next", *args: Any, **options: Any) -> Any:
    """A signature as Celery writes it."""
    return APP.signature(name, args=args, **{"queue": "shop", **options})


def plain(value: Any) -> Any:
    """`value` as it comes out of a message's JSON."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def raw(_name: str = "shop.next", **fields: Any) -> Dict[str, Any]:
    """A task as a stranger writes it."""
    return {"task": _name, "args": [], "kwargs": {}, "options": {"queue": "shop"}, "subtask_type": None, **fields}


HONEST = [
    pytest.param(None, id="nothing"),
    pytest.param({}, id="nothing, as a dictionary"),
    pytest.param({"callbacks": None, "errbacks": None, "chain": None, "chord": None}, id="what Celery sends mostly"),
    pytest.param({"callbacks": [sig()], "errbacks": [sig("shop.failed")]}, id="link and link_error"),
    pytest.param({"chain": [sig(), sig("b", countdown=3)]}, id="the rest of a chain"),
    pytest.param({"chain": [group(sig(), sig("b"))]}, id="a group at a chain's end"),
    pytest.param({"chain": [chord(group(sig(), sig("b")), sig("sum"))]}, id="a chord in a chain"),
    pytest.param({"chord": sig("sum")}, id="a member of a chord"),
    pytest.param({"callbacks": [chain(sig(), sig("b"))]}, id="a chain as a callback"),
    pytest.param({"callbacks": [sig(link=[sig("b")], priority=3, expires=60)]}, id="callbacks of callbacks"),
    pytest.param({"callbacks": [sig("a", {"any": [1, None]})]}, id="arguments of its own"),
    pytest.param({"callbacks": [sig(queue="celery")]}, id="the other queue"),
    pytest.param({"callbacks": [sig() for _ in range(MAX_TASKS)]}, id="as many as may be"),
]


@pytest.mark.parametrize("embedded", HONEST)
def test_what_celerys_canvas_writes_goes_through(embedded: Any) -> None:
    check_embedded(plain(embedded), LISTED)


RUNS_OTHERS = raw(
    "celery.starmap",
    immutable=True,
    args=[{"task": "celery.group"}, [[[raw("x", options={"queue": "pose:running"})], [["t", None], None], "g", []]]],
    options={},
)
#: Each with a word of the sentence that it is refused with.
HOSTILE = [
    pytest.param({"errbacks": [RUNS_OTHERS]}, "one of Celery's own", id="an errback that runs Celery's own tasks"),
    pytest.param({"callbacks": [raw("celery.map")]}, "one of Celery's own", id="a callback that does"),
    pytest.param({"chord": raw("celery.chord_unlock")}, "one of Celery's own", id="a chord's body that does"),
    pytest.param({"callbacks": [raw("celery.group", kwargs={"tasks": []})]}, "Celery's own", id="a group of no type"),
    pytest.param({"callbacks": [raw("celery.map", subtask_type="map")]}, "canvas", id="a type that runs tasks"),
    pytest.param({"callbacks": [raw("x", subtask_type="group")]}, "canvas", id="a type that is not the name's"),
    pytest.param({"callbacks": [raw("celery.group", subtask_type="group", args=[[]])]}, "canvas", id="with arguments"),
    pytest.param({"callbacks": [raw(options={"queue": "pose:running"})]}, "POSE_CALLBACK_QUEUES", id="a key"),
    pytest.param({"callbacks": [raw(options={"queue": "other"})]}, "POSE_CALLBACK_QUEUES", id="another queue"),
    pytest.param({"callbacks": [raw(options={})]}, "POSE_CALLBACK_QUEUES", id="no queue: the worker's own"),
    pytest.param({"callbacks": [raw(options={"routing_key": "other"})]}, "POSE_CALLBACK", id="by a routing key"),
    pytest.param(
        {"callbacks": [raw(options={"queue": "shop", "routing_key": "other"})]}, "POSE_CALLBACK", id="by both"
    ),
    pytest.param({"callbacks": [raw(options={"exchange": "celeryev"})]}, "'exchange'", id="an exchange"),
    pytest.param({"callbacks": [raw(options={"queue": ["shop"]})]}, "POSE_CALLBACK_QUEUES", id="a list of queues"),
    pytest.param({"callbacks": [raw(options={"queue": "shop", "serializer": "pickle"})]}, "serializer", id="pickle"),
    pytest.param({"callbacks": [raw(options={"queue": "shop", "connection": "x"})]}, "'connection'", id="a connection"),
    pytest.param(
        {"callbacks": [raw(options={"queue": "shop", "link_error": [RUNS_OTHERS]})]}, "Celery's own", id="within a link"
    ),
    pytest.param(
        {"callbacks": [raw(options={"queue": "shop", "chord": raw("celery.map")})]}, "Celery's own", id="within a chord"
    ),
    pytest.param(
        {"chain": [raw("celery.chord", subtask_type="chord", kwargs={"header": [raw()], "body": raw("celery.map")})]},
        "Celery's own",
        id="a body within a chord",
    ),
    pytest.param({"callbacks": [raw() for _ in range(MAX_TASKS + 1)]}, "more than", id="one too many"),
    pytest.param(
        {"callbacks": [raw("celery.group", subtask_type="group", kwargs={"tasks": [raw()] * 5000})]},
        "more than",
        id="5000",
    ),
    pytest.param({"callbacks": raw()}, "canvas", id="no list"),
    pytest.param({"callbacks": ["shop.next"]}, "canvas", id="a name alone"),
    pytest.param({"callbacks": [raw(task=7)]}, "canvas", id="a name that is none"),
    pytest.param({"callbacks": [raw(kwargs=[])]}, "canvas", id="arguments that are none"),
    pytest.param({"callbacks": [raw(subtask_type=["group"])]}, "canvas", id="a type that is none"),
    pytest.param({"callback": [raw()]}, "callbacks, errbacks, chain and chord", id="a part that is none"),
    pytest.param([raw()], "callbacks, errbacks, chain and chord", id="a list"),
]


@pytest.mark.parametrize(("embedded", "why"), HOSTILE)
def test_anything_else_is_refused(embedded: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        check_embedded(plain(embedded), LISTED)


def test_an_operator_may_list_no_queue() -> None:
    parts: List[str] = ["callbacks", "errbacks", "chain"]
    for part in parts:
        with pytest.raises(InvalidRequest, match="sends to none only"):
            check_embedded(plain({part: [sig()]}), ())
