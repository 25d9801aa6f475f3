"""kombu's Redis transports, changed where kombu's own would end the worker or lose a message.

Each change says what it is for, and which test fails if kombu changes below it.
"""

from __future__ import annotations

import logging
import time
import uuid
from queue import Empty
from typing import Any, Dict

import kombu
import redis
from celery.app.amqp import AMQP
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps

from worker.broker.envelope import FIRST, NO_MESSAGE, opened
from worker.servers import Keys, damaged
from worker.settings import settings

logger = logging.getLogger(__name__)

#: Seconds between two tries to take messages while a queue's key is no list, and between two lines about it.
_REST_S = 1.0
_SAY_AGAIN_S = 60.0


class _Channel:
    """What is changed of a Redis channel."""

    def _brpop_read(self, **options: Any) -> bool:
        """Take what BRPOP has brought. kombu's own reads it as a message, whatever it is.

        Test: what_is_no_message_is_handed_on_as_such.
        """
        channel: Any = self
        answer = None
        try:
            answer = channel.client.parse_response(channel.client.connection, "BRPOP", **options)
        except channel.connection_errors:
            channel.client.connection.disconnect()  # the next attempt connects again
            raise
        except redis.ResponseError as exc:
            if not damaged(exc):
                raise
            self._rest(exc)
        finally:
            channel._in_poll = None  # so that another BRPOP is sent
        if not answer:
            raise Empty
        name = answer[0].decode(errors="replace").rsplit(channel.sep, 1)[0]
        channel._queue_cycle.rotate(name)
        channel.connection._deliver(opened(answer[1], settings().max_message_bytes), name)
        getattr(channel, "_flush_brpop_reauth", lambda: None)()  # of kombu 5.7: renews credentials that expire
        return True

    #: When BRPOP is sent again, and when it is said again that it is not, in seconds of the monotonic clock.
    _brpop_from = _said_from = 0.0

    def _rest(self, exc: redis.ResponseError) -> None:
        """A queue's key holds something else than a list. Nobody consumes until it is gone; that is looked for."""
        now = time.monotonic()
        self._brpop_from = now + _REST_S
        if now >= self._said_from:
            self._said_from = now + _SAY_AGAIN_S
            logger.error(
                "✗ No messages can be taken: the key of a queue is no list (%s); find it with TYPE, and delete it.", exc
            )

    def _brpop_start(self, *args: Any, **kwargs: Any) -> None:
        """Wait for messages, but not while a queue's key is no list.

        Test: a_queue_that_is_no_list.
        """
        if time.monotonic() >= self._brpop_from:
            super()._brpop_start(*args, **kwargs)  # type: ignore[misc]

    #: What talks to Redis, but does not wait for messages.
    _talking: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """A client. kombu makes one for each message, and another for its acknowledgement, which takes as long as both.

        Where the connection is gone, that is said as Celery expects it: an acknowledgement that comes too late is
        logged, where kombu's AttributeError ends the worker.
        Tests: messages_are_taken_and_acknowledged_by_one_client, an_acknowledgement_after_the_connection_was_lost.
        """
        channel: Any = self
        if channel.connection is None:
            raise redis.ConnectionError("The connection that the message came by is lost.")
        if asynchronous:
            return super()._create_client(asynchronous)  # type: ignore[misc]
        if self._talking is None or self._talking.connection_pool is not channel.pool:
            self._talking = super()._create_client()  # type: ignore[misc]
        return self._talking

    def _size(self, queue: str) -> int:
        """How many messages wait in `queue`, which kombu asks when it declares it; none in what is no list.

        Test: a_queue_that_is_no_list.
        """
        try:
            return int(super()._size(queue))  # type: ignore[misc]
        except redis.ResponseError as exc:
            if not damaged(exc):
                raise
            return 0

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        """Put `message` into `queue`, unless whoever chose it, such as a command's sender, has named no queue.

        Tests: nothing_is_put_where_celery_keeps_what_is_in_work, what_is_sent_again_does_not_wait_again.
        """
        channel: Any = self
        own = (channel.unacked_key, channel.unacked_index_key, channel.unacked_mutex_key)
        if queue in own or queue.startswith((channel.keyprefix_queue % "", Keys(settings().key_prefix).ours(""))):
            logger.error("✗ A message for %r was dropped: that is no queue, but a key of the worker's own.", queue)
            return
        if FIRST not in message["headers"]:
            super()._put(queue, message, **kwargs)  # type: ignore[misc]
            return
        headers = {name: value for name, value in message["headers"].items() if name != FIRST}
        key = channel._q_for_pri(queue, channel._get_message_priority(message, reverse=False))
        with channel.conn_or_acquire() as client:
            client.rpush(key, dumps({**message, "headers": headers}))

    def _do_restore_message(self, payload: Any, exchange: str, key: str, pipe: Any, leftmost: bool = False) -> None:
        """Put a message back that was in work: at the head, not behind all others, as kombu does if it was rejected.

        Test: what_is_given_back_does_not_wait_again.
        """
        super()._do_restore_message(payload, exchange, key, pipe, leftmost=False)  # type: ignore[misc]

    def close(self) -> None:
        """Close it. Celery does so twice when the connection is lost; the second time, it leads nowhere any more.

        Then nothing can be given back: what is in work stays unacknowledged, out of which it comes back.
        Test: a_connection_that_is_lost_while_a_message_is_in_work_can_be_closed.
        """
        channel: Any = self
        if not channel.closed and channel.connection.client is None:
            channel.do_restore = False
        super().close()  # type: ignore[misc]

    def _handle_message(self, client: Any, response: Any) -> Any:
        """Take apart what was published to all workers, such as a command; what is no message is left out.

        Test: what_is_published_to_all_workers_ends_none.
        """
        payload = super()._handle_message(client, response)  # type: ignore[misc]
        if payload["type"] in (b"message", b"pmessage") and payload["data"]:
            envelope = opened(payload["data"], settings().max_message_bytes)
            if envelope.get("content-type") == NO_MESSAGE:
                logger.error("✗ What was published to all workers was refused: %.300s.", envelope["headers"]["why"])
                payload["data"] = None
        return payload


class Channel(_Channel, kombu_redis.Channel):
    """A channel of Redis."""


class SentinelChannel(_Channel, kombu_redis.SentinelChannel):
    """A channel of the Redis that Sentinel names."""


class _Transport:
    """What is changed of a Redis transport."""

    def _deliver(self, message: Dict[str, Any], queue: str) -> None:
        """Hand on `message`. It goes back to the queue that it was taken from, wherever it says that it belongs.

        One that named another would be lost there; and all would be, if that was a key of Celery's own. Its delivery
        tag is one that nobody else has chosen: two messages of one tag would be taken for each other in work.
        Tests: a_message_goes_back_to_where_it_was_whatever_it_says, messages_of_one_tag_are_in_work_side_by_side.
        """
        message["properties"]["delivery_tag"] = str(uuid.uuid4())
        message["properties"]["delivery_info"].update(exchange="", routing_key=queue)
        super()._deliver(message, queue)  # type: ignore[misc]


class Transport(_Transport, kombu_redis.Transport):
    """Redis."""

    Channel = Channel


class SentinelTransport(_Transport, kombu_redis.SentinelTransport):
    """Redis behind Sentinel."""

    Channel = SentinelChannel


class CheckedConnection(kombu.Connection):
    """A connection whose transport is one of ours where kombu has one of that name.

    A transport that is named by Celery's ``broker_transport`` would be lost when kombu goes on to the next of several
    hosts, which it takes from their URLs. Test: the_next_sentinel_is_asked_through_the_same_transport.
    """

    def get_transport_cls(self) -> Any:
        """The transport's class."""
        ours = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
        return ours.get(self.transport_cls) or super().get_transport_cls()


class CheckedAmqp(AMQP):
    """What Celery's app makes its connections with."""

    Connection = CheckedConnection
