"""What a deployment tells its Redis: how often for a job, and that two of them on one server never meet."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

import pytest
import redis

from tests.support import wait_until
from tests.support.monitor import Seen, monitored
from worker.children import stop_child
from worker.cli.local import embedded_redis
from worker.client import PoseClient

pytestmark = [pytest.mark.queue, pytest.mark.long]

#: Key prefix and queue of each deployment.
DEPLOYMENTS = {"first": ("pose", "pose"), "second": ("two", "second")}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A Redis of these deployments' own, so that every key on it is one of theirs."""
    with embedded_redis() as url:
        yield url


@pytest.fixture(scope="module")
def commands() -> Dict[str, List[Seen]]:
    return {}


@pytest.fixture(scope="module")
def clients(
    server: str, samples: Path, start_worker: Callable[..., subprocess.Popen], commands: Dict[str, List[Seen]]
) -> Iterator[Dict[str, PoseClient]]:
    """Of each deployment a client, and a worker that has started, one after the other, under the eyes of MONITOR."""
    workers, made = [], {}
    for number, (name, (prefix, queue)) in enumerate(DEPLOYMENTS.items()):
        with monitored(server) as commands[name]:
            variables = {"POSE_BROKER_URL": server, "POSE_KEY_PREFIX": prefix, "POSE_QUEUE": queue}
            worker = start_worker(f"cpu{number}", **variables, POSE_ENGINE="null", POSE_IMAGE_ROOTS=samples)
            workers.append(worker)
            made[name] = PoseClient(server, key_prefix=prefix, queue=queue)
            made[name].submit(samples / "bus.jpg").result(60)
    yield made
    for client in made.values():
        client.close()
    for worker in workers:
        stop_child(worker, grace_s=10)


def test_a_job_costs_the_ledger_three_round_trips(clients: Dict[str, PoseClient], server: str, samples: Path) -> None:
    with monitored(server) as seen:
        job = clients["first"].submit(samples / "bus.jpg")
        job.result(60)
        wait_until(lambda: clients["first"]._ledger.state(job.id) == "done")
    steps = [one for one in seen if one.client != "lua" and one.name in ("EVALSHA", "EVAL") and job.id in one.words]
    assert len(steps) == 3, steps  # its record; its attempt; its outcome with its result
    assert len({one.client for one in steps}) >= 2


def test_two_deployments_of_one_server_never_meet(clients: Dict[str, PoseClient], samples: Path) -> None:
    """Not even when their callers choose the same id for different jobs."""
    ends: List[Tuple[str, str]] = []
    for name, image in (("first", "bus.jpg"), ("second", "astronaut.png")):
        job = clients[name].submit(samples / image, job_id="order-1")
        result = job.result(60)
        ends.append((Path(result.image.path).name, result.worker.partition("@")[0]))
        assert job.overlay()
    assert ends == [("bus.jpg", "cpu0"), ("astronaut.png", "cpu1")]
    assert Path(clients["first"].submit(samples / "bus.jpg", job_id="order-1").result(5).image.path).name == "bus.jpg"


def test_remote_control_reaches_ones_own_workers_only(clients: Dict[str, PoseClient]) -> None:
    for client, expected in zip(clients.values(), ("cpu0", "cpu1")):
        [answer] = client.app.control.ping(timeout=2)
        assert next(iter(answer)).startswith(expected)


def test_no_key_or_channel_is_touched_by_both(clients: Dict[str, PoseClient], commands: Dict[str, List[Seen]]) -> None:
    """But kombu's table of deadlines, whose entries are exchanges, and those have names of their own."""
    told = commands["second"]
    # The first deployment's worker is there, too; the second's connections are those that name its queue or its keys.
    theirs = {one.client for one in told if any(re.match(r"two([.:]|$)|second", word) for word in one.words)} - {"lua"}
    first, second = _keys(commands["first"]), _keys(told, theirs)
    assert min(len(first), len(second)) > 30
    assert first & second == {"_kombu.binding_deadlines"}


def _keys(told: List[Seen], clients: Optional[Set[str]] = None) -> Set[str]:
    """The keys and channels that `clients`, or all, have touched."""
    keys, by = set(), ""
    for one in told:
        by = by if one.client == "lua" else one.client  # a script's commands follow it
        if one.name not in _KEYLESS and len(one.words) > 1 and (clients is None or by in clients):
            keys.add(one.words[1])
    return keys


#: Commands whose first argument is neither a key nor a channel.
_KEYLESS = {"HELLO", "CLIENT", "SELECT", "INFO", "PING", "ECHO", "TIME", "MULTI", "EXEC", "EVAL", "EVALSHA", "SCRIPT"}


def test_no_key_stays_for_ever_but_the_bindings(clients: Dict[str, PoseClient], server: str) -> None:
    with redis.Redis.from_url(server) as client:
        wait_until(lambda: not client.exists("unacked", "two:unacked"))
        lasting = [key for key in client.scan_iter() if client.ttl(key) == -1 and not key.startswith(b"_kombu.binding")]
    assert lasting == []
