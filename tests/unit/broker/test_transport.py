"""kombu's transport as the worker has it, on a real Redis."""

from __future__ import annotations

import base64
import json
import logging
import socket
import uuid
from contextlib import suppress
from typing import Any, List

import pytest
import redis
from kombu import Exchange, Queue

from tests.support.hostile_messages import arguments, message
from worker.broker.envelope import FIRST, NO_MESSAGE
from worker.broker.transport import CheckedConnection, SentinelTransport, Transport
from worker.cli.local import embedded_redis


def consumed(connection: CheckedConnection, queue: str, count: int) -> List[Any]:
    """The next `count` messages of `queue`, which are in work then."""
    taken: List[Any] = []
    connection.default_channel.basic_consume(queue, no_ack=False, callback=taken.append, consumer_tag=queue)
    while len(taken) < count:
        connection.drain_events(timeout=5)
    return taken


def test_messages_of_one_tag_are_in_work_side_by_side(broker: str, redis_client: redis.Redis) -> None:
    """Else a worker that dies would leave one of them to nobody."""
    sent = [json.dumps(message(name, arguments())) for name in ("one", "two")]
    assert len({json.loads(text)["properties"]["delivery_tag"] for text in sent}) == 1
    redis_client.lpush("tags", *sent)
    keys = {"unacked_key": "tags-unacked", "unacked_index_key": "tags-index", "unacked_mutex_key": "tags-mutex"}
    with CheckedConnection(broker, transport_options=keys) as connection:
        first, second = consumed(connection, "tags", 2)
        assert (first.headers["id"], second.headers["id"]) == ("one", "two")
        assert redis_client.hlen("tags-unacked") == redis_client.zcard("tags-index") == 2
        first.ack()
        [left] = redis_client.hvals("tags-unacked")
        assert json.loads(left)[0]["headers"]["id"] == "two"
        second.ack()
    assert redis_client.hlen("tags-unacked") == 0


def test_messages_are_taken_and_acknowledged_by_one_client(broker: str, redis_client: redis.Redis) -> None:
    """And by another one once the connections were closed."""
    queue = f"client-{uuid.uuid4().hex}"
    redis_client.lpush(queue, json.dumps(message("one", arguments())))
    with CheckedConnection(broker) as connection:
        [taken] = consumed(connection, queue, 1)
        channel = connection.default_channel
        with channel.conn_or_acquire() as client, channel.conn_or_acquire() as same:
            assert client is same
        channel._disconnect_pools()
        with channel.conn_or_acquire() as other:
            assert other is not client
        taken.ack()
    assert redis_client.hlen("unacked") == 0


@pytest.mark.parametrize("item", [b"{", b"[1]", b'{"properties": 7}', b"\xff", b"[" * 100_000])
def test_what_is_no_message_is_handed_on_as_such(broker: str, redis_client: redis.Redis, item: bytes) -> None:
    queue = f"none-{uuid.uuid4().hex}"
    redis_client.lpush(queue, item)
    with CheckedConnection(broker) as connection:
        [taken] = consumed(connection, queue, 1)
        assert taken.content_type == NO_MESSAGE
        assert taken.body == item[:2000]
        assert taken.headers["bytes"] == len(item)
        taken.ack()


def test_the_next_sentinel_is_asked_through_the_same_transport() -> None:
    options = {"master_name": "mine"}
    connection = CheckedConnection("sentinel://one:1/0;sentinel://two:2/0", transport_options=options)
    assert connection.get_transport_cls() is SentinelTransport
    connection.maybe_switch_next()
    assert connection.hostname == "two"
    assert connection.get_transport_cls() is SentinelTransport
    assert CheckedConnection("redis+socket:///run/redis.sock").get_transport_cls() is Transport


def test_what_is_given_back_does_not_wait_again(broker: str, redis_client: redis.Redis) -> None:
    with CheckedConnection(broker) as connection:
        channel = connection.default_channel
        for name in ("one", "two"):
            connection.Producer().publish(name, routing_key="back")
        channel.basic_get("back").reject(requeue=True)
        again = channel.basic_get("back")
        assert again.body == b"one"
        again.ack()
    redis_client.delete("back")


def test_a_message_goes_back_to_where_it_was_whatever_it_says(broker: str, redis_client: redis.Redis) -> None:
    """Where Celery keeps what is in work, it would end all consuming."""
    fields = message("one", arguments())
    fields["properties"]["delivery_info"] = {"exchange": "elsewhere", "routing_key": "home-unacked"}
    redis_client.lpush("home", json.dumps(fields))
    keys = {"unacked_key": "home-unacked", "unacked_index_key": "home-index", "unacked_mutex_key": "home-mutex"}
    taken: List[Any] = []
    with CheckedConnection(broker, transport_options=keys) as connection:
        connection.default_channel.basic_consume("home", no_ack=False, callback=taken.append, consumer_tag="home")
        connection.drain_events(timeout=5)
        assert taken[0].delivery_info["routing_key"] == "home"
        taken[0].reject(requeue=True)
    assert (redis_client.llen("home"), redis_client.exists("home-unacked")) == (1, 0)
    redis_client.delete("home")


def test_nothing_is_put_where_celery_keeps_what_is_in_work(broker: str, redis_client: redis.Redis) -> None:
    """Messages can choose where an answer to a command goes, or what follows upon a job."""
    with CheckedConnection(broker, transport_options={"unacked_key": "own"}) as connection:
        for queue in ("own", "unacked_index", "unacked_mutex", "_kombu.binding.pose", "an-answer"):
            connection.Producer().publish("x", exchange="", routing_key=queue)
            assert redis_client.type(queue) == (b"list" if queue == "an-answer" else b"none")
    redis_client.delete("an-answer")


def test_what_is_sent_again_does_not_wait_again(broker: str, redis_client: redis.Redis) -> None:
    with CheckedConnection(broker, transport_options={"priority_steps": list(range(10))}) as connection:
        producer = connection.Producer()
        for name, headers in (("one", {}), ("lost", {FIRST: True}), ("two", {})):
            for priority in (0, 4):
                producer.publish(name, routing_key="line", headers=headers, priority=priority)
    for key in ("line", "line\x06\x164"):
        waiting = [json.loads(text) for text in redis_client.lrange(key, 0, -1)]
        assert [base64.b64decode(one["body"]) for one in reversed(waiting)] == [b"lost", b"one", b"two"]
        assert all(one["headers"] == {} for one in waiting)
        redis_client.delete(key)


def test_a_connection_that_is_lost_while_a_message_is_in_work_can_be_closed() -> None:
    """As Celery does it before it connects again; whatever else is raised there ends the worker."""
    with embedded_redis() as broker:
        with redis.Redis.from_url(broker) as client:
            client.lpush("lost", json.dumps(message("one", arguments())))
        connection = CheckedConnection(broker)
        channel, commands = connection.default_channel, connection.channel()
        assert channel.basic_get("lost").headers["id"] == "one"
        Queue("commands", Exchange("commands", type="fanout"), auto_delete=True)(commands).declare()
        for one, name in ((channel, "lost"), (commands, "commands")):
            one.basic_consume(name, no_ack=False, callback=print, consumer_tag=name)
        with suppress(socket.timeout):  # it waits for the next
            connection.drain_events(timeout=0.2)
    with suppress(Exception):
        connection.collect()
    with suppress(*connection.connection_errors):
        connection.close()
    assert channel.closed


def test_an_acknowledgement_after_the_connection_was_lost(broker: str, redis_client: redis.Redis) -> None:
    """Celery acknowledges what has ended also after it has connected anew; what else is raised ends the worker."""
    key = "late-acknowledgement"
    redis_client.lpush(key, json.dumps(message("one", arguments())))
    connection = CheckedConnection(broker)
    channel = connection.channel()
    [late] = [channel.basic_get(key)]
    channel.do_restore = False
    connection.collect()
    late.ack_log_error(logging.getLogger("celery"), connection.connection_errors)
    assert not late.acknowledged
    for name in redis_client.scan_iter("unacked*"):
        redis_client.delete(name)
