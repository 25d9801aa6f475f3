"""A job's message, put on its queue: by a client for the first time, by a worker that found it lost, by a person."""

from __future__ import annotations

from datetime import datetime

from celery import Celery

from worker.broker.envelope import FIRST
from worker.contract import TASK
from worker.jobs.ledger import Message
from worker.servers import is_redis, queue


def send(app: Celery, broker_url: str, job_id: str, message: Message, *, first: bool = False) -> None:
    """Send `message` under the id of its job.

    Args:
        app: whose connections are used.
        broker_url: as POSE_BROKER_URL: whether it is Redis or RabbitMQ decides how the queue is declared.
        first: on Redis, whether it goes to the head of its queue, because it has waited there before. `app` must be a
            worker's.

    Raises:
        kombu.exceptions.OperationalError: the broker does not answer; nothing was sent.
    """
    app.send_task(
        TASK,
        args=message.args,
        kwargs=message.kwargs,
        task_id=job_id,
        queue=queue(message.queue, broker_url),
        priority=message.priority,
        expires=datetime.fromisoformat(message.expires) if message.expires else None,
        headers={**message.headers, FIRST: True} if first and is_redis(broker_url) else message.headers,
        retry=False,
        kwargsrepr="",  # for events, and workers drop it
        # A list of Redis is there when it is pushed to.
        declare=[] if is_redis(broker_url) else None,
    )
