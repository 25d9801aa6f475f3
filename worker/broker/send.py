"""A job's message, put on its queue: by a client for the first time, by a worker that found it lost, by a person."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from typing import Any, Iterable, Tuple

import kombu.exceptions
from celery import Celery

from worker.broker.envelope import FIRST
from worker.jobs.ledger import Message
from worker.servers import is_redis, queue


def send_many(app: Celery, broker_url: str, jobs: Iterable[Tuple[str, Message]]) -> None:
    """Send each message under its job's id; to Redis all in one go, where kombu can (5.7).

    Raises:
        kombu.exceptions.OperationalError: the broker does not answer; some may have been sent.
    """
    try:
        with app.producer_or_acquire() as producer, getattr(producer, "batch", nullcontext)():
            for job_id, message in jobs:
                send(app, broker_url, job_id, message, producer=producer)
    except getattr(kombu.exceptions, "BatchPublishError", ()) as exc:
        raise kombu.exceptions.OperationalError(str(exc.__cause__ or exc)) from exc


def send(
    app: Celery, broker_url: str, job_id: str, message: Message, *, first: bool = False, producer: Any = None
) -> None:
    """Send `message` under the id of its job.

    Args:
        app: whose connections are used.
        broker_url: as POSE_BROKER_URL: whether it is Redis or RabbitMQ decides how the queue is declared.
        first: on Redis, whether it goes to the head of its queue, because it has waited there before. `app` must be a
            worker's.
        producer: kombu's, if one is at hand.

    Raises:
        kombu.exceptions.OperationalError: the broker does not answer; nothing was sent.
    """
    app.send_task(
        message.task,
        args=message.args,
        kwargs=message.kwargs,
        task_id=job_id,
        queue=queue(message.queue, broker_url),
        priority=message.priority,
        expires=datetime.fromisoformat(message.expires) if message.expires else None,
        headers={**message.headers, FIRST: True} if first and is_redis(broker_url) else message.headers,
        retry=False,
        producer=producer,
        kwargsrepr="",  # for events, and workers drop it
        # A list of Redis is there when it is pushed to.
        declare=[] if is_redis(broker_url) else None,
    )
