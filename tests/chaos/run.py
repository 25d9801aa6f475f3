"""A chaos run: jobs on one side, faults on the other, and at the end an account of every job.

``python -m tests.chaos.run --jobs 3000 --kills 200 --seed 7`` (``make chaos``); tests/chaos/test_chaos.py has it short.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import redis
from PIL import Image

from tests.chaos.account import Account
from tests.chaos.faults import FULL_S, Faults
from tests.chaos.stage import SETTINGS, Disk, Server, Workers, shared_memory
from worker.client import PoseClient
from worker.contract import Result
from worker.errors import BrokerUnavailable
from worker.jobs.ledger import Ledger

#: Different images that the jobs name; the others are copies of one that kill.
IMAGES = 20
#: Seconds within which jobs must have ended that were in work in what was killed.
REACH_S = {
    "slot killed": 10.0,
    "net killed": 10.0,
    "worker killed": 10.0 + float(SETTINGS["POSE_HARD_TIME_LIMIT_S"]),  # type: ignore[arg-type]
}


class Strike(NamedTuple):
    """A fault: what it was, when, and the jobs that were in work in what it hit."""

    told: str
    at: float
    jobs: List[str]

    @property
    def kind(self) -> str:
        return " ".join(self.told.split()[:2])


class Run:
    """One run.

    Args:
        outage_s: seconds for which Redis is away when it is taken away.
        lease_s: seconds without a sign of life after which an attempt counts as lost.
        poison: the shares of jobs that kill their slot, and their worker.
        store: where overlays go, ``file`` or ``redis``.
        only: kinds of faults, by parts of their names; all if empty.
        program: the redis-server or valkey-server; the embedded one if not given.
        variables: more POSE_* variables of the workers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        workers: int = 3,
        outage_s: float = 40,
        lease_s: float = 10,
        poison: Tuple[float, float] = (0, 0),
        store: str = "file",
        only: Sequence[str] = (),
        program: str = "",
        variables: Optional[Dict[str, Any]] = None,
    ) -> None:
        self._random, self._poison = random.Random(seed), poison
        self._images = folder / "images"
        self._images.mkdir()
        self.memory = shared_memory()
        self.server, self.disk = Server(folder, program), Disk(folder)
        self.server.start()
        self.overlays = self.disk.folder.as_uri() if store == "file" else ""
        chosen = {
            "POSE_IMAGE_ROOTS": self._images,
            "POSE_OVERLAY_STORE": self.overlays,
            # Poison needs few attempts; a job that is only near many deaths, or a full disk, must survive them.
            **(
                {"POSE_MAX_ATTEMPTS": 3, "POSE_RETRY_BASE_S": FULL_S, "POSE_RETRY_MAX_S": 3 * FULL_S}
                if any(poison)
                else {}
            ),
            "CHAOS_LEASE_S": lease_s,
            **(variables or {}),
        }
        self.workers = Workers(workers, folder, self.server, chosen)
        self._faults = Faults(
            self._random, self.server, self.disk, self.workers, outage_s=outage_s, frozen_s=lease_s + 3, only=only
        )
        self.ledger = Ledger(redis.Redis(port=self.server.port, socket_timeout=5), "pose")
        #: The results without any fault, by image.
        self.references: Dict[Path, Result] = {}
        self.submitted: Dict[str, Path] = {}
        self.poisonous: List[str] = []
        self.struck: List[Strike] = []

    def play(self, jobs: int, kills: int, pause_s: float, log: Any = None) -> None:
        """Submit, strike, and return when all has been submitted."""
        self.workers.start()
        self.workers.await_ready()
        with PoseClient(self.server.url) as client:
            for number in range(IMAGES):
                path = self._image(number, "fine")
                self.references[path] = client.submit(path, target_height=64).result(60)
        over = threading.Event()
        submitter = threading.Thread(target=self._submit, args=(jobs, kills * pause_s / jobs, over), daemon=True)
        submitter.start()
        begun = time.time()
        # Ctrl-C ends the striking, and the account of what was struck follows.
        with contextlib.suppress(KeyboardInterrupt):
            for number in range(kills):
                time.sleep(pause_s * self._random.uniform(0.5, 1.5))
                at, held = time.time(), self._held()
                told = self._faults.strike()
                self.struck.append(Strike(told, at, _hit(told, held)))
                if log:
                    log.write(f"{number + 1:>4}  {at - begun:6.1f} s  {told}\n")
                    log.flush()
        over.set()
        submitter.join()

    def close(self) -> None:
        self.server.stop()
        self.disk.close()

    def keep(self, folder: Path) -> None:
        """Copy what tells afterwards what has happened: the append-only file, the log, and the faults."""
        shutil.copytree(self.server.folder, folder, dirs_exist_ok=True)
        shutil.copy(self.workers.log, folder)
        (folder / "struck.txt").write_text("".join(f"{one.at:.3f} {one.told} {one.jobs}\n" for one in self.struck))

    def _submit(self, jobs: int, every_s: float, over: threading.Event) -> None:
        """Submit at least `jobs`, and until all is `over`, so that no fault finds the workers idle.

        Ids are our own, and each job is submitted until the broker takes it: that is what they are for.
        """
        begun = time.monotonic()
        # Another generator than the faults': which jobs there are does not depend on when they strike.
        draws = random.Random(self._random.random())
        with PoseClient(self.server.url) as client:
            for number in itertools.count():
                if number >= jobs and over.is_set():
                    return
                kind = _kind(draws.random(), *self._poison)
                path, job_id = self._image(number % IMAGES, kind), f"job-{number:06}"
                if kind != "fine":
                    self.poisonous.append(job_id)
                while True:
                    try:
                        client.submit(path, job_id=job_id, target_height=64)
                        break
                    except BrokerUnavailable:
                        time.sleep(0.2)
                self.submitted[job_id] = path
                time.sleep(max(0.0, begun + (number + 1) * every_s - time.monotonic()))

    def _image(self, number: int, kind: str) -> Path:
        path = self._images / f"{kind}-{number}.png"
        if not path.exists():
            pixels = np.random.default_rng(number).integers(0, 256, (48, 64 + number, 3), np.uint8)
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


def _kind(draw: float, slot: float, worker: float) -> str:
    return "kills-worker" if draw < worker else "kills-slot" if draw < worker + slot else "fine"


def _hit(told: str, held: Dict[str, str]) -> List[str]:
    """The jobs that were in work in what a fault hit: a slot's, or all of a worker's; of a net, whoever."""
    kind, pid = told.rsplit(" ", 1) if told[-1].isdigit() else (told, "")
    if kind == "slot killed":
        return [job for job, attempt in held.items() if f'"pid": {pid}}}' in attempt]
    return list(held) if kind in ("worker killed", "net killed") else []


def report(run: Run, account: Account) -> None:
    """Print how fast what was hit has recovered, in all and where nothing else struck meanwhile."""
    for kind, reach_s in REACH_S.items():
        for title, alone in (("", False), (" and nothing else meanwhile", True)):
            spent = [one.seconds for one in account.recoveries if one.kind == kind and (one.alone or not alone)]
            if spent:
                told = f"{statistics.median(spent):.1f} s (median), {max(spent):.1f} s (worst) of {len(spent)}"
                kept = f"{sum(one <= reach_s for one in spent)} within the reach of {reach_s:g} s"
                print(f"{kind}{title}: recovered in {told}, {kept}")
    if run.poisonous:
        delays = sorted(account.delays(), reverse=True)
        late = sum(delay > REACH_S["worker killed"] for delay in delays)
        print(
            f"innocent jobs, from their first attempt to their end: {statistics.median(delays):.2f} s (median), "
            f"{delays[0]:.1f} s (worst); {late} of {len(delays)} took longer than a killed worker's may"
        )


def _arguments(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=4000, help="at least so many, evenly over the faults")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two faults")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--outage", type=float, default=40.0, help="seconds for which Redis is away")
    parser.add_argument("--store", choices=("file", "redis"), default="file", help="where overlays go")
    parser.add_argument("--only", action="append", default=[], help="strike only with faults of such a name")
    parser.add_argument("--net-ms", type=float, default=100, help="milliseconds that the net takes")
    parser.add_argument("--server", default="", help="a redis-server or valkey-server, beside the embedded one")
    parser.add_argument("--poison", action="store_true", help="2 %% of the jobs kill slots, 0.1 %% kill workers")
    parser.add_argument("--keep", type=Path, help="copy what Redis was told, and the workers' log, to this folder")
    parser.add_argument("--patience", type=float, default=600, help="seconds within which the last job must end")
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The long form; prints what struck, what became of the jobs, and how fast they recovered."""
    told = _arguments(arguments)
    print(f"seed {told.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            Path(folder),
            seed=told.seed,
            workers=told.workers,
            outage_s=told.outage,
            poison=(0.02, 0.001) if told.poison else (0, 0),
            store=told.store,
            only=told.only,
            program=told.server,
            variables={"NULL_NET_MS": told.net_ms},
        )
        try:
            if not run.disk.mounted:
                print("no file system can be mounted here, so no disk gets full")
            begun = time.monotonic()
            run.play(told.jobs, told.kills, told.pause, sys.stdout)
            account = Account(run, told.patience)
            spent_s = time.monotonic() - begun
            struck = f"{len(run.struck)} faults, {run.workers.restarts} workers restarted"
            print(f"{dict(account.outcomes)} in {spent_s:.0f} s, {struck}")
            report(run, account)
            for fault in account.faults:
                print(f"✗ {fault}")
            if account.faults:
                print(run.workers.log.read_text(errors="replace")[-5000:])
        finally:
            run.workers.stop()
            run.close()
            if told.keep:
                run.keep(told.keep)
    return 1 if account.faults else 0


if __name__ == "__main__":
    sys.exit(main())
