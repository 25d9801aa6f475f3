"""Servers by URL, as Celery takes them; which are refused; and the names of keys in Redis."""

from __future__ import annotations

import re
from typing import Any, Dict

import pytest
import redis

from tests.support import ROOT
from worker.client import PoseClient
from worker.errors import SettingsError
from worker.servers import DELIVERY_LIMIT, Keys, celery_server, queue, queue_list, said
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
def test_servers_for_celery(url: str, told: str, options: Dict[str, Any]) -> None:
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
def test_a_url_that_cannot_be_used_is_refused_at_once(variables: Dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        read_settings(variables)
    assert "secret" not in str(caught.value)


def test_a_client_says_the_same() -> None:
    with pytest.raises(SettingsError, match="There is no server 'amqp://u:\\*\\*\\*@h': results are kept in a Redis"):
        PoseClient("amqp://u:secret@h")
    with pytest.raises(SettingsError, match="There is no server 'http://h': must begin with"):
        PoseClient("http://h")


def test_what_rabbitmq_cannot_deliver_goes_to_a_queue_of_its_own() -> None:
    declared = queue("urgent", "amqp://h")
    assert declared.queue_arguments["x-queue-type"] == "quorum"
    assert declared.queue_arguments["x-delivery-limit"] == DELIVERY_LIMIT
    assert declared.queue_arguments["x-dead-letter-routing-key"] == "urgent.dead"
    assert queue("urgent", "redis://h").queue_arguments is None


def test_an_error_of_redis_is_shown_without_its_command() -> None:
    told = "Command # 1 (HSET a b secret) of pipeline caused error: OOM command not allowed"
    assert said(redis.ResponseError(told)) == "OOM command not allowed"
    assert said(redis.ConnectionError("Connection refused")) == "Connection refused"


def test_the_default_prefix_leaves_celerys_keys_and_another_begins_them() -> None:
    assert Keys().job("a") == "pose:job:a"
    assert (Keys().unacked, Keys().broker_options, Keys().result_options) == ("unacked", {}, {})
    two = Keys("two")
    assert two.broker_options["unacked_index_key"] == "two:unacked_index"
    assert two.result_options == {"global_keyprefix": "two:"}
    assert two.celery_settings["event_exchange"] == "two.celeryev"
    assert two.waiting(queue_list("q", 3)) == "two:waiting:q\x06\x163"
    assert queue_list("q") == "q"


def test_the_table_has_every_key_that_a_script_names() -> None:
    table = set(re.findall(r"^    ([a-z]+)(?:[:/]<\w+>\S*)?  ", Keys.__doc__ or "", re.MULTILINE))
    assert {"job", "calls", "overlay"} <= table
    for script in (ROOT / "worker" / "jobs" / "lua").glob("*.lua"):
        assert set(re.findall(r"prefix \.\. ':([a-z]+)", script.read_text(encoding="utf-8"))) <= table, script.name
