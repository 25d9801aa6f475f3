"""The Celery app of a client: JSON only, impatient, and silent until somebody waits."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Tuple

import celery
import kombu.exceptions
import redis

from worker.errors import BrokerUnavailable, JobFailed, SettingsError
from worker.servers import Keys, Server, celery_server, is_redis, masked, said


def untrusted(job_id: str) -> JobFailed:
    """What a job has ended in whose result is no worker's."""
    return JobFailed(
        f"What is stored as the result of job {job_id} is not from a worker: it cannot be read; "
        "see who can write to Redis."
    )


def client_app(broker_url: str, results_url: str, key_prefix: str) -> celery.Celery:
    """An app that sends to the one and reads from the other, as the workers of POSE_KEY_PREFIX `key_prefix` do.

    Raises:
        SettingsError: one of the URLs is of no server that there is.
    """
    broker, results = _servers(broker_url, results_url)
    keys = Keys(key_prefix)
    app = celery.Celery("pose-client", broker=broker.url, backend=results.url, set_as_current=False)
    # As a setting it would only be read from a configuration module.
    app.loader.override_backends = {
        **dict.fromkeys(("redis", "rediss"), "worker.broker.results:ClientBackend"),
        "sentinel": "worker.broker.results:SentinelClientBackend",
    }
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # A client that cannot reach the broker says so within seconds instead of waiting for ever.
        broker_transport_options={
            "socket_connect_timeout": 5,
            "max_retries": 1,
            "priority_steps": list(range(10)),
            **broker.options,
        },
        redis_socket_connect_timeout=5,
        result_backend_transport_options={
            "retry_policy": {"max_retries": 1},
            **results.options,
            **keys.result_options,
        },
        **keys.celery_settings,
    )
    return app


def _servers(broker_url: str, results_url: str) -> Tuple[Server, Server]:
    url = broker_url
    try:
        broker, url = celery_server(url), results_url
        if not is_redis(url):
            raise ValueError("results are kept in a Redis; give its URL as result_backend")
        return broker, celery_server(url)
    except ValueError as exc:
        raise SettingsError(f"There is no server {masked(url)!r}: {exc}.") from None


@contextmanager
def broker_errors(url: str) -> Iterator[None]:
    """Translate what celery, kombu and redis raise when the broker at `url` is away into BrokerUnavailable."""
    try:
        yield
    except redis.exceptions.NoScriptError as exc:
        raise BrokerUnavailable(
            f"No worker has come to the Redis {masked(url)} since it was started, and this user may not load the "
            "ledger's scripts; start a worker, then try again."
        ) from exc
    # A RuntimeError is what Celery's backend raises when its attempts to connect are used up.
    except (kombu.exceptions.OperationalError, redis.RedisError, RuntimeError) as exc:
        raise BrokerUnavailable(
            f"The broker {masked(url)} does not answer ({said(exc)}); check the URL and the server."
        ) from exc
