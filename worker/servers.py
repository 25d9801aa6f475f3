"""Redis and RabbitMQ: servers by their URLs, queues, and every key in Redis.

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

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Tuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    import redis
    from kombu import Queue

REDIS = ("redis", "rediss", "unix", "sentinel")
RABBITMQ = ("amqp", "amqps")

#: The Redis that is used where no broker is configured, and the example in messages.
DEFAULT_URL = "redis://127.0.0.1:6379/0"
#: Deliveries of one message after which RabbitMQ takes it for poison and moves it to ``<queue>.dead``.
DELIVERY_LIMIT = 20
#: POSE_KEY_PREFIX, where it is not set.
DEFAULT_PREFIX = "pose"
#: A queue's priorities in Celery. On Redis each has a list of its own, see :func:`queue_list`.
PRIORITIES = range(10)
#: What kombu puts between a queue's name and a priority.
_SEPARATOR = "\x06\x16"
_SENTINEL_PORT = 26379


@dataclass(frozen=True)
class Keys:
    """Every key in Redis that the deployment with POSE_KEY_PREFIX `prefix` uses.

    Those of ours begin with the prefix and a colon, and are in the result backend's Redis:

    ================  ==========  =========================================  ======================  ==================
    key               type        holds                                      written by              read by
    ================  ==========  =========================================  ======================  ==================
    job:<id>          hash        a job's record                             jobs                    jobs
    waiting:<list>    sorted set  ids of jobs by the time they were sent to  jobs                    jobs
                                  the list (see :func:`queue_list`)
    running           sorted set  ids by the end of their lease              jobs                    jobs
    later             sorted set  ids by the time of their next attempt      jobs                    jobs
    dead              sorted set  ids of dead letters by time of death       jobs                    jobs
    reconciler        string      token of the one reconciler that may act   jobs                    jobs
    quarantine        string      the job of many attempts that is tried     jobs                    jobs
                                  alone
    calls             sorted set  ids by when to look whether they ended     notify.pending          notify.pending
    call:<id>         hash        whom to notify of a job's end              notify.pending          notify.pending
    refused           list        refused messages, the newest first         broker.refused          broker.refused
    serves:<queue>    string      a worker that takes jobs from the queue    observe.heart           jobs, for clients
    worker:<name>     string      a worker's heartbeat, JSON                 observe.heart           observe.heartbeat
    upload:<id>       string      the image that was sent with a job         jobs, senders           jobs
    uploads           sorted set  bytes and hash of uploads by expiry        jobs                    jobs
    uploads:bytes     string      how many bytes all uploads have            jobs                    jobs
    overlay/<id>.jpg  string      an overlay; .png if it is transparent      storage (from process)  storage, by URL
    maps/<id>.npz     string      a job's maps                               storage (from process)  storage, by URL
    ================  ==========  =========================================  ======================  ==================

    The others are Celery's and kombu's. Queues and ``_kombu.binding.<queue>`` have their names in every deployment.
    The default prefix leaves also the others as every Celery client expects them: results
    (``celery-task-meta-<id>``), messages in work (``unacked``, ``unacked_index``, ``unacked_mutex``), and the channels
    of remote control and events. Any other prefix begins these, so that deployments which share a Redis do not meet.
    """

    prefix: str = DEFAULT_PREFIX

    def job(self, job_id: str) -> str:
        """The record of a job."""
        return self.ours("job", job_id)

    def waiting(self, list_name: str) -> str:
        """The jobs that wait in a list, see :func:`queue_list`."""
        return self.ours("waiting", list_name)

    def call(self, job_id: str) -> str:
        """Whom to notify of a job's end."""
        return self.ours("call", job_id)

    def upload(self, job_id: str) -> str:
        """The image that was sent with a job."""
        return self.ours("upload", job_id)

    def worker(self, name: str) -> str:
        """A worker's heartbeat."""
        return self.ours("worker", name)

    def serves(self, queue_name: str) -> str:
        """A worker that takes jobs from a queue."""
        return self.ours("serves", queue_name)

    def ours(self, *parts: str) -> str:
        """One of our own keys, by the parts of the table's first column."""
        return ":".join((self.prefix, *parts))

    @property
    def unacked(self) -> str:
        """The hash of messages that consumers hold."""
        return "unacked" if self._celerys_own else self.ours("unacked")

    @property
    def broker_options(self) -> Dict[str, Any]:
        """kombu's transport options."""
        if self._celerys_own:
            return {}
        return {f"unacked{part}_key": f"{self.unacked}{part}" for part in ("", "_index", "_mutex")}

    @property
    def result_options(self) -> Dict[str, Any]:
        """The result backend's transport options."""
        return {} if self._celerys_own else {"global_keyprefix": self.ours("")}

    @property
    def celery_settings(self) -> Dict[str, Any]:
        """Celery's settings."""
        if self._celerys_own:
            return {}
        return {"control_exchange": f"{self.prefix}.celery", "event_exchange": f"{self.prefix}.celeryev"}

    @property
    def _celerys_own(self) -> bool:
        return self.prefix == DEFAULT_PREFIX


def queue_list(queue_name: str, priority: int = 0) -> str:
    """The Redis list in which a queue's messages of a priority wait."""
    return f"{queue_name}{_SEPARATOR}{priority}" if priority else queue_name


def queue_of(list_name: str) -> str:
    """The queue whose messages of some priority wait in a list."""
    return list_name.partition(_SEPARATOR)[0]


class Server(NamedTuple):
    """A server for Celery and kombu: the URL in their form, and the options that do not fit into it."""

    url: str
    options: Dict[str, Any]


def celery_server(url: str) -> Server:
    """The server at `url`, as Celery takes it.

    Raises:
        ValueError: the URL is of no such kind, lacks something, or has a port or a database that is no number.
    """
    if "://" not in url:
        raise ValueError("is no URL, such as redis://:password@host:6379/0")
    parts = urlsplit(url)
    _check_numbers(parts)
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


def masked(url: str) -> str:
    """`url` with every password in it replaced by ``***``, fit for logs and error messages; also if it is none."""
    start, at, rest = url.rpartition("@")
    if at and "://" in start and not start.startswith("file:"):
        scheme, _, credentials = start.partition("://")
        start = f"{scheme}://{credentials.split(':', 1)[0]}:***"
    elif at and not start.startswith("file:"):  # no URL at all, yet perhaps with a password
        start = "***"
    return re.sub(r"(password=)[^&]*", r"\1***", start + at + rest)


def no_worker(queue: str, broker_url: str) -> str:
    """What to say where nobody takes jobs."""
    return (
        f"No worker takes jobs from queue {queue!r} of broker {masked(broker_url)}; "
        "start one with this POSE_BROKER_URL: python -m worker fleet"
    )


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
    """A Redis error's message without the command of a pipeline, which may hold a message or a secret."""
    return str(exc).rpartition(" of pipeline caused error: ")[2]


def damaged(exc: BaseException) -> bool:
    """Whether a Redis error says that a key has another type, or a field another value, than we ever write.

    Waiting does not help then: only a stranger can have written it.
    """
    return re.search("WRONGTYPE|attempt to |not an integer|not a valid float", str(exc)) is not None


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


def _check_numbers(parts: SplitResult) -> None:
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
