"""Jobs as clients of Celery in other languages write them: each is the bytes that lie in a Redis list.

By the sources of these clients. What is random in them is fixed here.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Callable, Dict, Optional

from worker.contract import TASK

#: What clients make up beside the job's id.
OTHER = "7d0f0a52-1b52-4f2b-8a52-5e6a7c8d9e0f"


def _envelope(body: Any, headers: Optional[Dict[str, Any]], properties: Dict[str, Any], **fields: Any) -> bytes:
    text = base64.b64encode(json.dumps(body).encode()).decode()
    whole = {
        "body": text,
        "headers": headers,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": {"body_encoding": "base64", "delivery_tag": OTHER, **properties},
        **fields,
    }
    return json.dumps(
        {name: value for name, value in whole.items() if name != "headers" or headers is not None}
    ).encode()


def gocelery(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """gocelery 2, DelayKwargs: protocol 1; its correlation_id is not the job's id, and there are no headers at all."""
    body = {
        **{"id": job_id, "task": TASK, "args": [], "kwargs": {"image": image, "options": options}},
        **{"retries": 0, "eta": None, "expires": None},
    }
    delivery = {"priority": 0, "routing_key": "celery", "exchange": "celery"}
    return _envelope(
        body, None, {"correlation_id": OTHER, "reply_to": OTHER, "delivery_info": delivery, "delivery_mode": 2}
    )


def gocelery_by_position(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """gocelery 2, Delay; of a message that is used again, the keyword arguments are null."""
    body = {"id": job_id, "task": TASK, "args": [image, options], "kwargs": None, "retries": 0, "eta": None}
    delivery = {"priority": 0, "routing_key": "celery", "exchange": "celery"}
    return _envelope(
        {**body, "expires": "2130-01-01T00:00:00.123456789+09:00"},
        None,
        {"correlation_id": OTHER, "reply_to": OTHER, "delivery_info": delivery, "delivery_mode": 2},
    )


def rusty_celery(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """rusty-celery 0.5: protocol 2; nothing says where it was sent to."""
    headers: Dict[str, Any] = dict.fromkeys(
        ("root_id", "parent_id", "group", "meth", "shadow", "eta", "expires", "retries", "argsrepr", "kwargsrepr")
    )
    headers.update(id=job_id, task=TASK, lang="rust", timelimit=[None, None], origin="gen1@host")
    body = [[], {"image": image, "options": options}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))]
    return _envelope(body, headers, {"correlation_id": job_id, "reply_to": None})


def celery_node(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """celery.node 0.5, applyAsync([image, options]): an argument that is left out is null in JSON."""
    headers = {"lang": "js", "task": TASK, "id": job_id}
    delivery = {"exchange": "", "routing_key": "pose"}
    properties = {"delivery_info": delivery, "delivery_mode": 2, "correlationId": job_id, "replyTo": ""}
    return _envelope([[image, options], None, {}], headers, properties)


def celery_node_1(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """celery.node with TASK_PROTOCOL 1."""
    body = {"task": TASK, "id": job_id, "args": [], "kwargs": {"image": image, "options": options}}
    delivery = {"exchange": "pose", "priority": 0, "routing_key": "pose"}
    return _envelope(body, {}, {"delivery_info": delivery, "delivery_mode": 2, "reply_to": OTHER})


def celery_java(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """celery-java 1.4: protocol 2, arguments by position only."""
    embedded = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
    headers = {"id": job_id, "task": TASK, "lang": "java", "argsrepr": "", "kwargsrepr": "", "origin": "1@host"}
    delivery = {"exchange": "", "routing_key": "pose"}
    properties = {"correlation_id": job_id, "reply_to": OTHER, "delivery_info": delivery, "delivery_mode": 2}
    return _envelope([[image, options], {}, embedded], headers, properties, **{"content-encoding": "UTF-8"})


def celery_php(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """celery-php: protocol 1; the id that is in the properties is the reply's queue."""
    body = {"id": job_id, "task": TASK, "args": [image, options], "kwargs": {}}
    delivery = {"priority": 0, "routing_key": "pose", "exchange": "pose"}
    properties = {"reply_to": job_id, "delivery_info": delivery, "delivery_mode": 2}
    return _envelope(body, {}, properties, **{"content-encoding": "UTF-8"})


def celery_3(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """Celery 3.1, and any later one with task_protocol 1."""
    body: Dict[str, Any] = {
        **dict.fromkeys(("taskset", "group", "group_index", "eta", "expires", "callbacks", "errbacks", "chord")),
        **{"task": TASK, "id": job_id, "args": [image], "kwargs": {"options": options}, "retries": 0, "utc": True},
        "timelimit": [None, None],
    }
    delivery = {"priority": 0, "routing_key": "pose", "exchange": "pose"}
    properties = {"correlation_id": job_id, "reply_to": OTHER, "delivery_info": delivery, "delivery_mode": 2}
    return _envelope(body, {}, properties)


def under_headers(job_id: str, image: str, options: Dict[str, Any]) -> bytes:
    """The body of protocol 1 under the headers of protocol 2, which Celery calls hybrid; the headers' id counts."""
    body = {"task": TASK, "id": OTHER, "args": [image], "kwargs": {"options": options}}
    delivery = {"exchange": "", "routing_key": "pose"}
    return _envelope(body, {"task": TASK, "id": job_id}, {"delivery_info": delivery})


#: Every client, by its name: a function of the job's id, the image, and the options.
CLIENTS: Dict[str, Callable[[str, str, Dict[str, Any]], bytes]] = {
    written.__name__: written
    for written in (
        *(gocelery, gocelery_by_position, rusty_celery, celery_node, celery_node_1, celery_java, celery_php),
        *(celery_3, under_headers),
    )
}
