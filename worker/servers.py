"""Redis and RabbitMQ by URL alone: what Celery is told of a server, and connections to it.

==================================  =====================================================================
``redis://[user:password@]host/0``  a Redis (or Valkey) server; ``unix://[user:password@]/path?db=0`` by its socket
``rediss://…?ssl_ca_certs=FILE``    the same with TLS; its certificate is always checked
``sentinel://…@h1,h2:26379/0?``     the Redis that Sentinel calls ``master=NAME``; user and password are the
``master=NAME``                     Redis', Sentinel's own is ``&sentinel_password=…``
``amqp://``, ``amqps://``           RabbitMQ, as broker only
==================================  =====================================================================

Loads redis and kombu only when they are used: settings are read where neither is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Tuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    import redis
    from kombu import Queue

REDIS = ("redis", "rediss", "unix", "sentinel")
RABBITMQ = ("amqp", "amqps")

#: The Redis that is used where no broker is configured, and that messages give as an example.
DEFAULT_URL = "redis://127.0.0.1:6379/0"
#: Deliveries of one message after which RabbitMQ takes it for poison and moves it to ``<queue>.dead``.
DELIVERY_LIMIT = 20
_SENTINEL_PORT = 26379


class Server(NamedTuple):
    """What Celery and kombu are told: a URL, and what does not fit into theirs."""

    url: str
    options: Dict[str, Any]


def celery_server(url: str) -> Server:
    """The server at `url`, as Celery takes it.

    Raises:
        ValueError: the URL is of no such kind, lacks something, or has a port or a database that is no number.
    """
    parts = urlsplit(url)
    _check_places(parts)
    if parts.scheme == "rediss":
        return Server(_with_certificates(url), {})
    if parts.scheme == "unix":
        return Server(f"redis+socket://{_credentials(parts)}{parts.path}?virtual_host={_query(url).get('db', '0')}", {})
    if parts.scheme == "sentinel":
        hosts, query = _sentinels(url), _query(url)
        urls = [f"sentinel://{_credentials(parts)}{host}:{port}{parts.path or '/0'}" for host, port in hosts]
        options: Dict[str, Any] = {"master_name": query["master"]}
        if "sentinel_password" in query:
            options["sentinel_kwargs"] = {"password": query["sentinel_password"]}
        return Server(";".join(urls), options)
    if parts.scheme in REDIS + RABBITMQ:
        return Server(url, {})
    raise ValueError(f"must begin with one of {', '.join(f'{kind}://' for kind in REDIS + RABBITMQ)}")


def is_redis(url: str) -> bool:
    """Whether `url` names a Redis rather than RabbitMQ."""
    return urlsplit(url).scheme in REDIS


def connect(url: str, timeout_s: float) -> redis.Redis:
    """A client of the Redis at `url`; it connects when it is used.

    Args:
        timeout_s: seconds within which it must connect, and answer.
    """
    import redis.sentinel

    timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    parts = urlsplit(url)
    if parts.scheme == "rediss":
        return redis.Redis.from_url(_with_certificates(url), **timeouts)
    if parts.scheme != "sentinel":
        return redis.Redis.from_url(url, **timeouts)
    query = _query(url)
    own = {"password": query["sentinel_password"]} if "sentinel_password" in query else {}
    sentinel = redis.sentinel.Sentinel(_sentinels(url), sentinel_kwargs={**timeouts, **own})
    found: redis.Redis = sentinel.master_for(
        query["master"],
        db=int(parts.path.strip("/") or 0),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        **timeouts,
    )
    return found


def said(exc: BaseException) -> str:
    """What a Redis' error says, without the words of a command in a pipeline: they may be a message, or a secret."""
    return str(exc).rpartition(" of pipeline caused error: ")[2]


def queue(name: str, broker_url: str) -> Queue:
    """The queue called `name`, declared in the same way by workers and clients.

    On RabbitMQ it is a quorum queue, bound to a topic exchange (which Celery's delayed delivery needs); a message that
    was delivered DELIVERY_LIMIT times in vain goes to the queue ``<name>.dead``.
    """
    from kombu import Exchange, Queue

    if is_redis(broker_url):
        return Queue(name, routing_key=name)
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{name}.dead",
    }
    return Queue(name, Exchange("pose", type="topic"), routing_key=name, queue_arguments=arguments)


def dead_queue(name: str) -> Queue:
    """Where RabbitMQ puts what the queue called `name` could not deliver."""
    from kombu import Queue

    return Queue(f"{name}.dead", routing_key=f"{name}.dead", queue_arguments={"x-queue-type": "quorum"})


def _check_places(parts: SplitResult) -> None:
    """Port and database are numbers, or left out."""
    try:
        _ = None if parts.scheme == "sentinel" else parts.port
    except ValueError:
        raise ValueError("its port is no number up to 65535 (in a password, / is written %2F, and @ %40)") from None
    database = dict(parse_qsl(parts.query)).get("db", "0") if parts.scheme == "unix" else parts.path.strip("/")
    if parts.scheme in REDIS and {"username", "password"} & set(dict(parse_qsl(parts.query))):
        raise ValueError(f"its password must stand before the host: {parts.scheme}://user:password@…")
    if parts.scheme in REDIS and database and not database.isdigit():
        raise ValueError(f"its database is {database!r} instead of a number such as 0")


def _credentials(parts: SplitResult) -> str:
    """Of a URL, what stands before its host."""
    return "".join(parts.netloc.rpartition("@")[:2])


def _query(url: str) -> Dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def _with_certificates(url: str) -> str:
    """`url` with the demand that the server's certificate is valid."""
    query = _query(url)
    if query.setdefault("ssl_cert_reqs", "required") not in ("required", "CERT_REQUIRED"):
        raise ValueError("ssl_cert_reqs must be required: without a checked certificate, anybody may be the server")
    return urlunsplit(urlsplit(url)._replace(query=urlencode(query, safe="/")))


def _sentinels(url: str) -> List[Tuple[str, int]]:
    if "master" not in _query(url):
        raise ValueError("a sentinel:// URL must end in ?master=NAME")
    hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    found = [host.rpartition(":") if ":" in host else (host, ":", str(_SENTINEL_PORT)) for host in hosts]
    if not all(host and port.isdigit() for host, _, port in found):
        raise ValueError("a sentinel:// URL names its hosts as host:port,host:port")
    return [(host, int(port)) for host, _, port in found]


__all__ = [
    "DEFAULT_URL",
    "DELIVERY_LIMIT",
    "Server",
    "celery_server",
    "connect",
    "dead_queue",
    "is_redis",
    "queue",
    "said",
]
