"""kombu's Redis transports, which look at what lies in a queue before they make a message of it.

kombu's own end the worker on whatever is no message. Here it is kept among the refused ones, and the worker goes on.
A message also gets a delivery tag of its own: two with the same one would take each other's place among those in work.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any, Optional, Tuple

import kombu.transport
import redis
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps

from worker.broker.gate import raw_fault
from worker.broker.refused import refuse
from worker.settings import settings

logger = logging.getLogger(__name__)

#: The header of a message that goes to the head of its queue; it does not go further than that.
FIRST = "pose_first"


def guard() -> None:
    """Have this process consume through the transports of this module."""
    kombu.transport.TRANSPORT_ALIASES.update(
        dict.fromkeys(("redis", "rediss"), "worker.broker.transport:Transport"),
        sentinel="worker.broker.transport:SentinelTransport",
    )


class Message(kombu_redis.virtual.Message):
    """A message whose delivery tag nobody else has chosen."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        payload["properties"]["delivery_tag"] = str(uuid.uuid4())
        super().__init__(payload, channel=channel, **kwargs)


class _Client(redis.Redis):
    """Gives what was taken from a queue only if it can be a message; else nothing was there."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """The server's answer to `command_name`."""
        answer = super().parse_response(connection, command_name, **options)
        return _taken(*answer) if answer and command_name == "BRPOP" else answer


def _taken(name: bytes, item: bytes) -> Optional[Tuple[bytes, bytes]]:
    fault = raw_fault(item, settings().max_message_bytes)
    if fault is None:
        return name, item
    from worker.app import app

    told = {"queue": name.decode(errors="replace"), "backend": app.backend, "job_id": fault.job_id}
    try:
        refuse(f"The message was refused: {fault.why}; send what docs/message.md says.", item, **told)
    except redis.RedisError as exc:  # it is in no queue any more
        logger.error("✗ The refused message could not be kept (%s): %.200r", exc, item)
    return None


class _Guarded:
    """What is changed of a Redis channel."""

    Message = Message

    def _get_client(self) -> Any:
        """The class of the connections."""
        super()._get_client()  # type: ignore[misc]  # looks at redis-py's version
        return _Client

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        """Put `message` into `queue`, unless whoever chose it, such as a command's sender, has named no queue."""
        own = (self.unacked_key, self.unacked_index_key, self.unacked_mutex_key)  # type: ignore[attr-defined]
        if queue in own or queue.startswith(self.keyprefix_queue % ""):  # type: ignore[attr-defined]
            logger.error("✗ A message for %r was dropped: that is no queue, but a key of Celery's own.", queue)
            return
        if FIRST not in message["headers"]:
            super()._put(queue, message, **kwargs)  # type: ignore[misc]
            return
        headers = {name: value for name, value in message["headers"].items() if name != FIRST}
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))  # type: ignore[attr-defined]
        with self.conn_or_acquire() as client:  # type: ignore[attr-defined]
            client.rpush(key, dumps({**message, "headers": headers}))

    def _do_restore_message(self, payload: Any, exchange: str, key: str, pipe: Any, leftmost: bool = False) -> None:
        """Put a message back that was in work: at the head, not behind all others, as kombu does if it was rejected."""
        super()._do_restore_message(payload, exchange, key, pipe, leftmost=False)  # type: ignore[misc]

    def close(self) -> None:
        """Close it. Celery does so twice when the connection is lost; the second time, it leads nowhere any more.

        Then nothing can be given back: what is in work stays unacknowledged, out of which it comes back.
        """
        if not self.closed and self.connection.client is None:  # type: ignore[attr-defined]
            self.do_restore = False
        super().close()  # type: ignore[misc]

    def _handle_message(self, client: Any, response: Any) -> Any:
        """Take apart what was published to all workers, such as a command; what is no message is as if it were not."""
        payload = super()._handle_message(client, response)  # type: ignore[misc]
        if payload["type"] in (b"message", b"pmessage") and payload["data"]:
            fault = raw_fault(payload["data"], settings().max_message_bytes)
            if fault is not None:
                logger.error("✗ What was published to all workers was refused: %s.", fault.why)
                payload["data"] = None
        return payload


class Channel(_Guarded, kombu_redis.Channel):
    """A channel of Redis."""


class SentinelChannel(_Guarded, kombu_redis.SentinelChannel):
    """A channel of the Redis that Sentinel names."""


class _Delivering:
    """What is changed of a Redis transport."""

    def _deliver(self, message: Any, queue: str) -> None:
        """Hand on `message`, which goes back to the queue that it was taken from, wherever it says that it belongs.

        One that named another would be lost there; and all would be, if that was a key of Celery's own.
        """
        message["properties"]["delivery_info"].update(exchange="", routing_key=queue)
        super()._deliver(message, queue)  # type: ignore[misc]


class Transport(_Delivering, kombu_redis.Transport):
    """Redis."""

    Channel = Channel


class SentinelTransport(_Delivering, kombu_redis.SentinelTransport):
    """Redis behind Sentinel."""

    Channel = SentinelChannel
