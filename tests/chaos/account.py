"""What became of all the jobs of a chaos run, and of everything that it has used."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple

from tests.chaos.faults import OF_ALL
from tests.chaos.stage import shared_memory
from worker.client import PoseClient
from worker.contract import Result
from worker.errors import DeadLetter
from worker.jobs.ledger import ENDED

if TYPE_CHECKING:
    from tests.chaos.run import Run

#: Fields of a result that may differ from one doing of a job to another.
_OWN = ("job_id", "timings_ms", "worker", "attempt")
#: Begins the keys that Redis keeps for ever: which queues there are.
_LASTING = b"_kombu.binding"


class Recovery(NamedTuple):
    """Of a fault that hit jobs in work: seconds until the last of them had ended, and whether nothing else struck."""

    kind: str
    seconds: float
    alone: bool


class Account:
    """Waits for the jobs of `run`, ends its workers, and looks into everything; `faults` is what is not as it must be.

    Args:
        patience_s: seconds within which the last of the jobs must have ended.
    """

    def __init__(self, run: Run, patience_s: float) -> None:
        self._run = run
        self.faults: List[str] = []
        self.outcomes: Counter = Counter()
        self.dead: List[str] = []
        self._records: Dict[str, Dict[str, str]] = {}
        with PoseClient(run.server.url, overlay_store=run.overlays) as client:
            self._await(patience_s)
            self._records = {job: run.ledger.show(job) for job in run.submitted}
            self._check_outcomes(client)
        self.recoveries = list(self._recoveries())
        self._check_queues()
        self._expect(not (left := run.workers.stop()), f"processes outlived their worker: {left}")
        self._check_keys()
        self._check_ends()
        self._check_files()
        self._expect(_within(10, lambda: set(shared_memory()) <= set(run.memory)), "something is left in shared memory")

    def delays(self) -> Iterator[float]:
        """Of each job that is no poison, seconds from the begin of its first attempt to its end."""
        for job, record in self._records.items():
            if job not in self._run.poisonous and "ended" in record:
                yield float(record["ended"]) - float(record["attempt:1"].split()[0])

    def _recoveries(self) -> Iterator[Recovery]:
        struck = self._run.struck
        for number, strike in enumerate(struck):
            ends = [float(self._records[job].get("ended", 0)) for job in strike.jobs if job in self._records]
            # What had ended before the blow fell was not hit.
            ends = [end for end in ends if not 0 < end <= strike.at]
            if ends and min(ends) > 0:
                others = struck[max(0, number - 3) : number] + struck[number + 1 :]
                alone = not any(
                    (strike.at < one.at < max(ends)) or (one.at < strike.at < one.at + 15 and one.kind in OF_ALL)
                    for one in others
                )
                yield Recovery(strike.kind, max(ends) - strike.at, alone)

    def _await(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        waiting = set(self._run.submitted)
        while waiting and time.monotonic() < deadline:
            waiting = {job for job in waiting if self._run.ledger.state(job) not in (*ENDED, "dead")}
            time.sleep(0.5)
        states = Counter(self._run.ledger.state(job) for job in waiting)
        self._expect(not waiting, f"{len(waiting)} jobs have not ended ({dict(states)}), e.g. {sorted(waiting)[:3]}")

    def _check_outcomes(self, client: PoseClient) -> None:
        """As many as were submitted; the results those of the run without faults; the poison dead, and nothing else."""
        ids = sorted(self._run.submitted)
        found: Dict[str, Any] = {}
        for start in range(0, len(ids), 500):
            found.update(client.ended(ids[start : start + 500]))
        for job in ids:
            state, outcome = self._records[job].get("state"), found.get(job)
            self.outcomes[state] += 1
            if state == "dead":
                self.dead.append(job)
                self._expect(isinstance(outcome, DeadLetter), f"{job} is dead, and its result is {outcome!r}")
            elif not isinstance(outcome, Result):
                self._expect(False, f"{job} ended as {state} with {outcome!r}")
            else:
                self._check_result(client, job, outcome)
        self._expect(sorted(self.dead) == sorted(self._run.poisonous), "the dead letters are not the poison")

    def _check_result(self, client: PoseClient, job: str, result: Result) -> None:
        reference = self._run.references.get(self._run.submitted[job])
        if reference is None:
            self._expect(False, f"{job} was to kill whatever reads it, and ended well: {result}")
            return
        self._expect(result.job_id == job, f"{job} has the result of {result.job_id}")
        self._expect(_essence(result) == _essence(reference), f"{job} has another result than without faults: {result}")
        overlay = result.overlay
        data = client.fetch(overlay, job) if overlay else b""
        whole = overlay and (overlay.sha256, overlay.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        self._expect(bool(whole), f"{job}: its overlay is not what it says")

    def _check_queues(self) -> None:
        """What was sent twice is acknowledged, too, if somewhat later."""
        client = self._run.server.client
        names = ("pose", "unacked", "unacked_index", "pose:running", "pose:later")
        emptied = _within(60, lambda: not client.exists(*names) and not list(client.scan_iter("pose:waiting:*")))
        self._expect(emptied, f"left in Redis: {[name for name in names if client.exists(name)]}")

    def _check_keys(self) -> None:
        client = self._run.server.client
        keys = [key for key in client.scan_iter(count=1000) if not key.startswith(_LASTING) and key != b"pose"]
        # A worker that stops gives back what it holds: a second message of a job that has ended, no other.
        ids = [json.loads(text)["headers"]["id"] for text in client.lrange("pose", 0, -1)]
        open_ = [job for job in ids if self._run.ledger.state(job) not in (*ENDED, "dead")]
        self._expect(not open_, f"messages of jobs that have not ended are left: {open_}")
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.ttl(key)
            lasting = [key for key, ttl in zip(keys, pipe.execute()) if ttl == -1]
        self._expect(not lasting, f"keys without expiry: {lasting[:3]}")

    def _check_ends(self) -> None:
        """By everything that Redis was ever told: each job entered one final state, and got one final result."""
        ends: Counter = Counter()
        results: Counter = Counter()
        for words in self._run.server.written():
            name = words[1].decode(errors="replace") if len(words) > 2 else ""
            if words[0].upper() == b"HSET" and name.startswith("pose:job:"):
                fields = dict(zip(words[2::2], words[3::2]))
                ends[name[len("pose:job:") :]] += fields.get(b"state", b"").decode() in (*ENDED, "dead")
            elif words[0].upper() == b"SET" and name.startswith("celery-task-meta-"):
                final = json.loads(words[2])["status"] in ("SUCCESS", "FAILURE", "REVOKED")
                results[name[len("celery-task-meta-") :]] += final
        for job in self._run.submitted:
            once = (ends[job], results[job]) == (1, 1)
            self._expect(once, f"{job} ended {ends[job]} times, with {results[job]} results")

    def _check_files(self) -> None:
        """Of a file store, that nothing stands under an overlay's name but overlays; parts are swept in time."""
        folder = self._run.disk.folder
        names = {path.stem for path in folder.rglob("*.jpg") if not path.name.startswith(".")}
        known = {*self._run.submitted, *(one.job_id for one in self._run.references.values())}
        self._expect(names <= known, f"files of no job: {sorted(names - known)[:3]}")

    def _expect(self, held: bool, fault: str) -> None:
        if not held:
            self.faults.append(fault)


def _essence(result: Result) -> Dict[str, Any]:
    """What must be the same, whoever did the job, when, and however often."""
    told = result.model_dump(exclude=set(_OWN))
    if told["overlay"]:
        del told["overlay"]["url"], told["overlay"]["expires_at"]
    return told


def _within(seconds: float, condition: Any) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
