"""A chaos run: jobs on one side, faults on the other, and at the end an account of every job.

``python -m tests.chaos.run --jobs 3000 --kills 200 --seed 7`` (``make chaos``); tests/chaos/test_chaos.py has it short.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import redis
from PIL import Image

from tests.chaos.faults import Faults
from tests.chaos.stage import Server, Workers, shared_memory
from worker.client import PoseClient
from worker.contract import Result
from worker.errors import BrokerUnavailable, DeadLetter
from worker.ledger import ENDED, Ledger


class Run:
    """One run.

    Args:
        jobs: how many are submitted, over the whole run.
        kills: how many faults strike, evenly over the time that the jobs take.
        poison: the shares of jobs that kill their slot, and their worker.
    """

    def __init__(
        self, folder: Path, *, seed: int, workers: int = 3, outage_s: float = 40, poison: Tuple[float, float] = (0, 0)
    ) -> None:
        self._random, self._folder, self._poison = random.Random(seed), folder, poison
        self._images = folder / "images"
        self._images.mkdir()
        self.server = Server(folder)
        self.server.start()
        variables = {
            "POSE_BROKER_URL": self.server.url,
            "POSE_IMAGE_ROOTS": self._images,
            # Poison needs few attempts; a job that is only near many deaths must survive them.
            **({"POSE_MAX_ATTEMPTS": 3} if any(poison) else {}),
        }
        self.workers = Workers(workers, folder, variables)
        self._faults = Faults(self._random, self.server, self.workers, outage_s)
        self._memory = shared_memory()
        self.ledger = Ledger(redis.Redis(port=self.server.port, socket_timeout=5), "pose")
        self.submitted: Dict[str, Path] = {}
        self.poisonous: List[str] = []
        #: Of faults: when, and the jobs that were in work in what was hit.
        self.struck: List[Tuple[str, float, List[str]]] = []

    def play(self, jobs: int, kills: int, pause_s: float, log: Any = None) -> None:
        """Submit, strike, and wait until all jobs have ended."""
        self.workers.start()
        self.workers.await_ready()
        submitter = threading.Thread(target=self._submit, args=(jobs, kills * pause_s / jobs))
        submitter.start()
        for number in range(kills):
            time.sleep(pause_s * self._random.uniform(0.5, 1.5))
            at, held = time.time(), self._held()
            told = self._faults.strike()
            self.struck.append((told, at, _hit(told, held)))
            if log:
                log.write(f"{number + 1:>4}  {told}\n")
                log.flush()
        submitter.join()

    def close(self) -> None:
        self.server.stop()

    def _submit(self, jobs: int, every_s: float) -> None:
        """Submit under ids of our own, again and again until the broker takes it: that is what they are for."""
        begun = time.monotonic()
        with PoseClient(self.server.url) as client:
            for number in range(jobs):
                path = self._image(number)
                job_id = f"job-{number:06}"
                while True:
                    try:
                        client.submit(path, job_id=job_id, target_height=64)
                        break
                    except BrokerUnavailable:
                        time.sleep(0.2)
                self.submitted[job_id] = path
                time.sleep(max(0.0, begun + (number + 1) * every_s - time.monotonic()))

    def _image(self, number: int) -> Path:
        slot, worker = self._poison
        draw = self._random.random()
        kind = "kills-worker" if draw < worker else "kills-slot" if draw < worker + slot else "fine"
        if kind != "fine":
            self.poisonous.append(f"job-{number:06}")
        path = self._images / f"{kind}-{number % 50}.png"
        if not path.exists():
            pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(path)
        return path

    def _held(self) -> Dict[str, str]:
        """Of the jobs in work, the attempts that hold them."""
        try:
            ids = [job_id.decode() for job_id in self.server.client.zrange("pose:running", 0, -1)]
            records = {job_id: self.ledger.show(job_id) for job_id in ids}
        except redis.RedisError:
            return {}
        return {job_id: record.get(f"attempt:{record.get('tries')}", "") for job_id, record in records.items()}


class Account:
    """What became of all the jobs of a run.

    Args:
        patience_s: seconds within which the last of them must have ended.
    """

    def __init__(self, run: Run, patience_s: float) -> None:
        self._run, self.faults = run, []  # type: Run, List[str]
        self.outcomes: Counter = Counter()
        self.dead: List[str] = []
        with PoseClient(run.server.url) as client:
            self._await(patience_s)
            self._check_outcomes(client)
        self._check_keys()
        survivors = run.workers.stop()
        self._expect(not survivors, f"processes outlived their worker: {survivors}")
        self._expect(shared_memory() == run._memory, "something was left in shared memory")

    def recoveries(self) -> Iterator[Tuple[str, float]]:
        """Of each fault that hit jobs in work: its kind, and the seconds until the last of them had ended."""
        for told, at, jobs in self._run.struck:
            ended = [float(self._run.ledger.show(job).get("ended", 0)) for job in jobs]
            if ended and min(ended) > 0:
                yield " ".join(told.split()[:2]), max(0.0, max(ended) - at)

    def _await(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        waiting = set(self._run.submitted)
        while waiting and time.monotonic() < deadline:
            waiting = {job for job in waiting if self._run.ledger.state(job) not in (*ENDED, "dead")}
            time.sleep(0.5)
        states = Counter(self._run.ledger.state(job) for job in waiting)
        self._expect(not waiting, f"{len(waiting)} jobs have not ended ({dict(states)}), e.g. {sorted(waiting)[:3]}")

    def _check_outcomes(self, client: PoseClient) -> None:
        ids = sorted(self._run.submitted)
        found: Dict[str, Any] = {}
        for start in range(0, len(ids), 500):
            found.update(client.ended(ids[start : start + 500]))
        pictures: Dict[Path, str] = {}
        for job in ids:
            state, outcome = self._run.ledger.state(job), found.get(job)
            self.outcomes[state] += 1
            if state == "dead":
                self.dead.append(job)
                self._expect(isinstance(outcome, DeadLetter), f"{job} is dead, and its result is {outcome!r}")
                continue
            if not isinstance(outcome, Result):
                self._expect(False, f"{job} ended as {state} with {outcome!r}")
                continue
            path = self._run.submitted[job]
            same = outcome.image.path == str(path) and outcome.job_id == job and outcome.people == []
            self._expect(same, f"{job} has the result of another: {outcome}")
            overlay = outcome.overlay
            data = client.fetch(overlay.url) if overlay else b""
            digest = hashlib.sha256(data).hexdigest()
            self._expect(bool(overlay and overlay.sha256 == digest), f"{job}: its overlay is not what it says")
            # Whoever drew it, and however often: one image, one picture.
            self._expect(pictures.setdefault(path, digest) == digest, f"{job}: its overlay differs from its image's")
        self._expect(sorted(self.dead) == sorted(self._run.poisonous), "the dead letters are not the poison")

    def _check_keys(self) -> None:
        client = self._run.server.client
        ours = [key for key in client.scan_iter(count=1000) if key.startswith((b"pose:", b"celery-task-meta"))]
        lasting = [key for key in ours if client.ttl(key) == -1]
        self._expect(not lasting, f"keys without expiry: {lasting[:3]}")

    def _expect(self, held: bool, fault: str) -> None:
        if not held:
            self.faults.append(fault)


def _hit(told: str, held: Dict[str, str]) -> List[str]:
    """The jobs that were in work in what a fault hit: a slot's, or all of a worker's; of a net, whoever."""
    kind, pid = told.rsplit(" ", 1) if told[-1].isdigit() else (told, "")
    if kind == "slot killed":
        return [job for job, attempt in held.items() if f'"pid": {pid}}}' in attempt]
    return list(held) if kind in ("worker killed", "net killed") else []


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The long form; prints what struck, what became of the jobs, and how fast they recovered."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two faults")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--outage", type=float, default=40.0)
    parser.add_argument("--poison", action="store_true", help="2 %% of the jobs kill slots, 0.1 %% kill workers")
    told = parser.parse_args(arguments)
    print(f"seed {told.seed}")
    with tempfile.TemporaryDirectory() as folder:
        poison = (0.02, 0.001) if told.poison else (0, 0)
        run = Run(Path(folder), seed=told.seed, workers=told.workers, outage_s=told.outage, poison=poison)
        begun = time.monotonic()
        run.play(told.jobs, told.kills, told.pause, sys.stdout)
        account = Account(run, patience_s=600)
        print(f"{dict(account.outcomes)} in {time.monotonic() - begun:.0f} s, {run.workers.restarts} workers restarted")
        by_kind: Dict[str, List[float]] = {}
        for kind, seconds in account.recoveries():
            by_kind.setdefault(kind, []).append(seconds)
        for kind, spent in by_kind.items():
            print(f"{kind}: recovered in {statistics.median(spent):.1f} s (median), {max(spent):.1f} s (worst)")
        run.close()
        for fault in account.faults:
            print(f"✗ {fault}")
        if account.faults:
            print(run.workers.log.read_text(errors="replace")[-5000:])
    return 1 if account.faults else 0


if __name__ == "__main__":
    sys.exit(main())
