"""Servers by URL: what Celery is told, and what is refused."""

from __future__ import annotations

from typing import Any, Dict

import pytest
import redis

from worker.client import PoseClient
from worker.errors import SettingsError
from worker.servers import DELIVERY_LIMIT, celery_server, queue, said
from worker.settings import read_settings


@pytest.mark.parametrize(
    ("url", "told", "options"),
    [
        ("redis://:p@h:1/2", "redis://:p@h:1/2", {}),
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required", {}),
        (
            "rediss://h/0?ssl_ca_certs=/etc/ca.pem",
            "rediss://h/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required",
            {},
        ),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3", {}),
        ("unix://u:p%2F@/run/redis.sock", "redis+socket://u:p%2F@/run/redis.sock?virtual_host=0", {}),
        (
            "sentinel://:p@a:1,b/4?master=m&sentinel_password=q",
            "sentinel://:p@a:1/4;sentinel://:p@b:26379/4",
            {"master_name": "m", "sentinel_kwargs": {"password": "q"}},
        ),
        ("amqp://u:p@h//", "amqp://u:p@h//", {}),
    ],
)
def test_what_celery_is_told(url: str, told: str, options: Dict[str, Any]) -> None:
    assert celery_server(url) == (told, options)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"POSE_BROKER_URL": "http://h"}, "POSE_BROKER_URL is 'http://h': must begin with one of redis://"),
        ({"POSE_BROKER_URL": "rediss://h?ssl_cert_reqs=none"}, "anybody may be the server"),
        ({"POSE_BROKER_URL": "redis://h/0?password=secret"}, "its password must stand before the host"),
        ({"POSE_BROKER_URL": "unix:///run/x?username=u&password=secret"}, "its password must stand before the host"),
        ({"POSE_BROKER_URL": "sentinel://h:1"}, r"must end in \?master=NAME"),
        ({"POSE_BROKER_URL": "sentinel://h:x/0?master=m"}, "host:port,host:port"),
        ({"POSE_BROKER_URL": "amqp://u:secret@h"}, "POSE_RESULT_BACKEND is '': RabbitMQ keeps no results"),
        ({"POSE_RESULT_BACKEND": "amqp://u:secret@h"}, "results are kept in a Redis"),
    ],
)
def test_a_url_that_will_not_do_is_told_at_once(variables: Dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        read_settings(variables)
    assert "secret" not in str(caught.value)


def test_a_client_says_the_same() -> None:
    with pytest.raises(SettingsError, match="There is no server 'amqp://u:\\*\\*\\*@h': results are kept in a Redis"):
        PoseClient("amqp://u:secret@h")
    with pytest.raises(SettingsError, match="There is no server 'http://h': must begin with"):
        PoseClient("http://h")


def test_poison_has_a_place_to_go_on_rabbitmq() -> None:
    declared = queue("urgent", "amqp://h")
    assert declared.queue_arguments["x-queue-type"] == "quorum"
    assert declared.queue_arguments["x-delivery-limit"] == DELIVERY_LIMIT
    assert declared.queue_arguments["x-dead-letter-routing-key"] == "urgent.dead"
    assert queue("urgent", "redis://h").queue_arguments is None


def test_what_redis_says_is_told_without_the_words_of_a_command() -> None:
    told = "Command # 1 (HSET a b secret) of pipeline caused error: OOM command not allowed"
    assert said(redis.ResponseError(told)) == "OOM command not allowed"
    assert said(redis.ConnectionError("Connection refused")) == "Connection refused"
