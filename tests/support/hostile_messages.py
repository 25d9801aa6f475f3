"""Messages as strangers send them, each as the bytes that lie in a Redis list, made from a seed."""

from __future__ import annotations

import base64
import json
import pickle
import random
import zlib
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from worker.contract import TASK


class Hostile(NamedTuple):
    """One message.

    Attributes:
        raw: what lies in the list.
        job_id: the id under which it must end, typed; None: it has none, and must be kept among the refused ones.
    """

    name: str
    raw: bytes
    job_id: Optional[str]


def message(
    job_id: Any = "an-id", body: Any = None, *, encode: bool = True, headers: Optional[Dict] = None, **fields: Any
) -> Dict[str, Any]:
    """A proper message, unless something else is asked for.

    Args:
        body: what is encoded as JSON; bytes and strings stand for themselves.
        headers: beside the id and the task, or instead of them.
        fields: of the envelope, beside or instead of the usual ones.
    """
    text = body if isinstance(body, (bytes, str)) else json.dumps(body)
    data = text.encode() if isinstance(text, str) else text
    return {
        "body": base64.b64encode(data).decode() if encode else text,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": job_id, "task": TASK, **(headers or {})},
        "properties": {
            "correlation_id": "c",
            "delivery_tag": "a tag that others have, too",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "pose"},
            "priority": 0,
            **({"body_encoding": "base64"} if encode else {}),
        },
        **fields,
    }


def arguments(**kwargs: Any) -> List[Any]:
    """A body with these keyword arguments."""
    return [[], {"image": "/nowhere.jpg", "options": {}, **kwargs}, {}]


def _deep(depth: int, kind: str = "[]") -> str:
    return kind[0] * depth + kind[-1] * depth if kind == "[]" else '{"a":' * depth + "1" + "}" * depth


#: Values of every JSON type, as any field may have them.
VALUES: List[Any] = [None, True, False, 0, -1, 7, 1.5, 1e308, 10**30, "", "x", "\0", "\ud800", "a\nb", "é" * 300]
VALUES += [[], [1], ["x"], [[]], {}, {"a": 1}, {"__type__": "datetime", "__value__": 7}, {"__type__": "no"}]
VALUES += [{"__type__": "base64", "__value__": "AAAA"}, {"id": {"id": {}}}, "9" * 5000, [None] * 300]

#: Bodies that are no arguments of ours.
_BODIES: Dict[str, Any] = {
    "empty": b"",
    "null": b"null",
    "number": b"7",
    "text": b"text",
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe[]",
    "pickle": pickle.dumps([[], {"image": "a"}, {}]),
    "null byte": b"\0",
    "NaN": b'[[], {"image": NaN}, {}]',
    "huge number": b'[[], {"image": ' + b"9" * 5000 + b"}, {}]",
    "exponent": b'[[], {"image": "a", "options": {"target_height": 1e999}}, {}]',
    "deep lists": _deep(100_000).encode(),
    "deep objects": _deep(20_000, "{}").encode(),
    "rather deep": f'[[], {{"image": "a", "options": {_deep(700)}}}, {{}}]'.encode(),
    "deep argument": f'[[{_deep(400)}], {{"image": "a"}}, {{}}]'.encode(),
    "list": [],
    "two": [[], {}],
    "four": [[], {}, {}, {}],
    "object": {"task": TASK, "id": "x", "args": [], "kwargs": {}},
    "arguments are an object": [{}, {}, {}],
    "keyword arguments are a list": [[], [], {}],
    "keyword arguments are null": [[], None, {}],
    "embedded text": [[], {}, "chain"],
    "embedded unknown": [[], {"image": "a"}, {"loglevel": 1, "id": "other"}],
    "embedded callbacks": [[], {"image": "a"}, {"callbacks": 7}],
    "embedded no task": [[], {"image": "a"}, {"callbacks": [{}], "chain": ["x"], "chord": 7, "errbacks": [None]}],
    "embedded depth": f'[[], {{}}, {{"chain": {_deep(300)}}}]'.encode(),
    "embedded types": [[], {"image": "a"}, {"callbacks": [{"task": "a", "args": 7, "kwargs": 7, "options": 7}]}],
    "embedded chain": [[], {}, {"errbacks": [{"task": "a", "kwargs": {"tasks": [7]}, "subtask_type": "chain"}]}],
    "embedded kind": [[], {"image": "a"}, {"chain": [{"task": "a", "subtask_type": "no such"}]}],
    "embedded for no queue": [[], {"image": "a"}, {"callbacks": [{"task": "a", "options": {"queue": "unacked"}}]}],
    "positional": [["/nowhere.jpg"], {}, {}],
    "the task itself": [[], {"image": "a", "self": 7}, {}],
    "type of kombu's": [[], {"image": {"__type__": "uuid", "__value__": {"hex": 1}}}, {}],
    "long": [[], {"image": "a" * 20_000}, {}],
}
#: Headers that Celery acts upon.
_HEADERS = ("task", "root_id", "parent_id", "group", "retries", "eta", "expires", "timelimit", "shadow", "origin")
_HEADERS += ("ignore_result", "stamped_headers", "stamps", "replaced_task_nesting", "lang", "argsrepr", "kwargsrepr")
_HEADERS += ("compression", "hostname", "called_directly", "is_eager", "delivery_info", "headers", "args", "chord")
_ARGUMENTS = ("image", "options", "webhook", "callback", "another")
_OPTIONS = ("model", "target_height", "scales", "merge", "max_people", "overlay", "preset", "min_score")
_TASKS = ("celery.backend_cleanup", "celery.map", "celery.chain", "celery.accumulate", "celery.chord_unlock")
_CONTENTS = ("application/x-python-serialize", "application/x-yaml", "application/data", "text/plain", "", "x" * 999)
_ENCODINGS = ("zlib", "zlib_codec", "bz2", "hex", "rot13", "utf-16", "idna", "no such", "x" * 999)


def _raw_items(random_: random.Random) -> Iterator[bytes]:
    """Bytes that are no message; none has an id."""
    yield from (b"", b"this is not JSON", bytes(5000), b"\xff\xfe\xfd", b"7", b"null", b'"a"', b"[]", b"{}", b"[7]")
    yield from (_deep(200_000).encode(), b"[" * 100_000, _deep(90_000, "{}").encode(), b'{"properties": Infinity}')
    yield from (
        pickle.dumps({"a": 1}),
        zlib.compress(b"{}" * 999),
        b"GET / HTTP/1.1\r\n",
        b'{"a": ' + b"1" * 9000 + b"}",
    )
    whole = json.dumps(message("cut", arguments())).encode()
    yield from (whole[: random_.randrange(1, len(whole) - 1)] for _ in range(20))
    yield from (random_.randbytes(random_.randrange(1, 2000)) for _ in range(20))
    for field in ("properties", "headers", "body", "content-type"):
        yield from (json.dumps({**message(None, arguments()), field: value}).encode() for value in VALUES)
    for field in ("delivery_info", "priority", "body_encoding", "delivery_tag"):
        for value in VALUES[:14]:
            fields = message(None, arguments())
            fields["properties"][field] = value
            yield json.dumps(fields).encode()
    yield json.dumps({**message(None), "body": "%%%a"}).encode()


def _with_bad_body() -> Iterator[Tuple[str, Dict[str, Any]]]:
    for name, body in _BODIES.items():
        yield f"body {name}", message(body=body)
        plain = body.decode("latin-1") if isinstance(body, bytes) else body
        yield f"plain body {name}", message(body=plain, encode=False)


def _with_bad_field(random_: random.Random) -> Iterator[Tuple[str, Dict[str, Any]]]:
    for header in _HEADERS:
        for value in random_.sample(VALUES, 9):
            yield f"header {header}", message(body=arguments(), headers={header: value})
    for argument in _ARGUMENTS:
        for value in random_.sample(VALUES[1:], 8):
            yield f"argument {argument}", message(body=arguments(**{argument: value}))
    for option in _OPTIONS:
        for value in random_.sample(VALUES[7:], 6):
            yield f"option {option}", message(body=arguments(options={option: value}))


def _with_bad_place() -> Iterator[Tuple[str, Dict[str, Any]]]:
    """In time and space."""
    for header in ("eta", "expires"):
        for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):  # there are none in UTC
            yield f"header {header}", message(body=arguments(), headers={header: moment})
    for url in ("http://[::1", "http://host:99999", "http://:80"):
        yield "argument webhook", message(body=arguments(webhook=url))
    yield "argument image", message(body=arguments(image="file://[::1/a.jpg"))
    for queue in ("unacked", "unacked_index", "unacked_mutex", "_kombu.binding.pose", "x.reply.celery.pidbox"):
        yield "argument callback", message(body=arguments(callback={"task": "a.b", "queue": queue}))


def _with_bad_kind() -> Iterator[Tuple[str, Dict[str, Any]]]:
    yield from ((f"task {task}", message(body=arguments(), headers={"task": task})) for task in _TASKS)
    for kind in _CONTENTS:
        yield f"content {kind[:20]}", message(body=arguments(), **{"content-type": kind})
    for kind in _ENCODINGS:
        yield f"encoding {kind[:20]}", message(body=arguments(), **{"content-encoding": kind})
    packed = {"compression": "application/x-gzip"}
    yield "bomb", message(body=zlib.compress(bytes(200_000_000), 9), headers=packed)
    unpacking = {"content-type": "application/data", "content-encoding": "zlib_codec"}
    yield "text bomb", message(body=zlib.compress(bytes(50_000_000), 9), **unpacking)
    yield "too large", message(body=arguments(image="a" * 400_000))
    yield "much too large", message(body=arguments(image="a" * 4_000_000))
    yield "limits", message(body=arguments(), headers={"timelimit": [1e9, 1e9]})
    yield "never", message(body=arguments(), headers={"expires": "not a time", "eta": "nor this"})


def hostile_messages(seed: int, prefix: str) -> List[Hostile]:
    """All of them, in an order of the seed's; ids begin with `prefix`."""
    random_ = random.Random(seed)
    found = [Hostile("raw", raw, None) for raw in _raw_items(random_)]
    with_id = [*_with_bad_body(), *_with_bad_field(random_), *_with_bad_place(), *_with_bad_kind()]
    for number, (name, fields) in enumerate(with_id):
        fields["headers"]["id"] = f"{prefix}-{number}"
        found.append(Hostile(name, json.dumps(fields).encode(), f"{prefix}-{number}"))
    random_.shuffle(found)
    return found
