"""Celery's canvas around our task: links, chains, groups and chords of an app that knows nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from base64 import b64decode
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import cv2
import numpy as np
import pytest
import redis

from tests.support import clean_environ, wait_until
from tests.support.client_messages import CLIENTS
from worker.children import stop_child

pytestmark = pytest.mark.queue

#: Another service, in a process of its own; it prints what its last line stands for.
SERVICE = """
import json, sys, time
from celery import Celery, chain, chord, group
broker, name, image, what = sys.argv[1:]
app = Celery("shop", broker=broker, backend=broker)

def pose(path=image):
    return app.signature("pose.estimate", kwargs={"image": path, "options": {"overlay": False}}, queue="pose-" + name)

def own(task):
    return app.signature(task, queue=name)

print(json.dumps(eval(what)))
"""

#: What waits for an end, and gives it in words.
SOON = "(timeout=60, propagate=False))"


class Shop(NamedTuple):
    """A service with a queue of its own, and a worker that does its jobs."""

    broker: str
    name: str
    image: Path
    client: redis.Redis

    def does(self, what: str) -> Any:
        """What the expression `what` gives in the service."""
        command = [sys.executable, "-c", SERVICE, self.broker, self.name, str(self.image), what]
        done = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def received(self, count: int) -> List[Dict[str, Any]]:
        """The next `count` messages on the service's own queue: task and arguments."""
        wait_until(lambda: self.client.llen(self.name) >= count)
        messages = [json.loads(self.client.rpop(self.name)) for _ in range(count)]
        assert all(one["headers"]["expires"] for one in messages)  # nobody may ever fetch them
        return [{"task": one["headers"]["task"], "args": json.loads(b64decode(one["body"]))[0]} for one in messages]


@pytest.fixture
def shop(
    broker: str, redis_client: redis.Redis, tmp_path: Path, start_worker: Callable[..., subprocess.Popen]
) -> Iterator[Shop]:
    name = f"shop-{uuid.uuid4().hex[:8]}"
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((64, 48, 3), np.uint8))
    variables = {"POSE_QUEUE": f"pose-{name}", "POSE_IMAGE_ROOTS": tmp_path, "POSE_ENGINE": "null"}
    variables["POSE_CALLBACK_QUEUES"] = name
    worker = start_worker("cpu5", POSE_BROKER_URL=broker, **variables)
    yield Shop(broker, name, image, redis_client)
    assert stop_child(worker, grace_s=20) == 0
    assert worker.stderr is not None
    assert b"Traceback" not in worker.stderr.read()


def test_what_follows_upon_a_job_is_sent_with_its_result(shop: Shop) -> None:
    linked = shop.does("pose().apply_async(link=own('shop.linked')).id")
    chained = shop.does("chain(pose(), own('shop.chained')).apply_async().parent.id")
    received = {one["task"]: one["args"][0]["job_id"] for one in shop.received(2)}
    assert received == {"shop.linked": linked, "shop.chained": chained}


def test_a_group_and_a_chord_have_the_results_of_their_members(shop: Shop) -> None:
    done = shop.does("group([pose(), pose()]).apply_async().get(timeout=60)")
    assert [one["people"] for one in done] == [[], []]
    shop.does("chord([pose(), pose()], own('shop.sum')).apply_async().id")
    [body] = shop.received(1)
    assert body["task"] == "shop.sum"
    assert [one["people"] for one in body["args"][0]] == [[], []]


def test_a_chord_whose_member_fails_ends_in_that_and_is_no_bug_of_the_worker(shop: Shop) -> None:
    """The fixture looks for tracebacks in the worker's log."""
    why = "str(chord([pose(), pose('/nowhere/b.png')], own('shop.sum')).apply_async().get(timeout=60, propagate=False))"
    assert "ImageNotAllowed" in shop.does(why)
    assert shop.client.llen(shop.name) == 0


def test_what_follows_goes_to_queues_that_the_operator_lists_alone(shop: Shop) -> None:
    why = shop.does(
        "str(pose().apply_async(link=app.signature('x', queue='elsewhere')).get(timeout=60, propagate=False))"
    )
    assert "POSE_CALLBACK_QUEUES" in why
    assert shop.client.llen("elsewhere") == 0


def test_whoever_waits_for_what_would_have_followed_hears_why_it_does_not(shop: Shop) -> None:
    other = "app.signature('x', queue='elsewhere')"
    for what in (f"chain(pose(), {other})", f"chord([pose(), pose()], {other})"):
        assert "POSE_CALLBACK_QUEUES" in shop.does(f"str({what}.apply_async().get" + SOON)
    assert shop.client.llen("elsewhere") == 0


def test_an_app_that_writes_the_natural_way_is_served(shop: Shop) -> None:
    """Arguments by position or by keyword, in both of Celery's protocols; what comes before in a chain is the image."""
    send = "app.send_task('pose.estimate', {}, queue='pose-' + name).get(timeout=60)['image']['width']"
    for words in (
        "args=[image]",
        "args=[image, {'overlay': False}]",
        "args=[image], kwargs={'options': {'overlay': False}}",
        "kwargs={'image': image}",
    ):
        assert shop.does(send.format(words)) == 48
        assert shop.does(f"app.conf.update(task_protocol=1) or {send.format(words)}") == 48
    assert (
        shop.does("app.signature('pose.estimate', [image], queue='pose-' + name).delay().get(timeout=60)['people']")
        == []
    )
    for words in ("args=[image, {}, 7]", "args=[image], kwargs={'image': image}", "args=[7]", "args=[image, 7]"):
        why = "str(app.send_task('pose.estimate', {}, queue='pose-' + name).get" + SOON
        assert "docs/message.md" in shop.does(why.format(words))


def test_other_languages_clients_are_served(shop: Shop) -> None:
    ids = {name: f"{name}-{uuid.uuid4()}" for name in CLIENTS}
    for name, written in CLIENTS.items():
        shop.client.lpush(f"pose-{shop.name}", written(ids[name], str(shop.image), {"max_people": 3}))
    done = shop.does(f"[app.AsyncResult(one).get(timeout=60)['job_id'] for one in {[*ids.values()]}]")
    assert done == [*ids.values()]


def test_an_errback_is_sent_when_a_job_fails(shop: Shop) -> None:
    failed = shop.does("pose('/nowhere/b.png').apply_async(link_error=own('shop.failed')).id")
    [errback] = shop.received(1)
    assert (errback["task"], errback["args"][0]) == ("shop.failed", failed)
