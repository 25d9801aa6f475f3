"""A chaos run over films: their segments, joins and workers are killed at random, and each film ends once, and whole.

``python -m tests.chaos.films --films 50 --kills 100 --seed 7``; tests/chaos/test_films.py has it short.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import av
import redis

from tests.chaos.faults import Faults
from tests.chaos.stage import Disk, Server, Workers
from tests.support import films
from worker.client import PoseClient
from worker.contract import Overlay
from worker.errors import BrokerUnavailable
from worker.jobs.ledger import ENDED, Ledger
from worker.video_contract import VideoResult, part_of

#: Different films, and frames of the shortest; each of the next has so many more.
_FILMS, _FRAMES, _MORE = 4, 30, 23
#: Frames of a segment.
_SEGMENT = 10


class FilmRun:
    """One run.

    Args:
        outage_s, lease_s: as of :class:`tests.chaos.run.Run`.
        net_ms: milliseconds that the net takes for a frame.
    """

    def __init__(
        self, folder: Path, *, seed: int, workers: int = 2, outage_s: float = 3, lease_s: float = 3, net_ms: float = 4
    ) -> None:
        self._random = random.Random(seed)
        self._folder = folder / "films"
        self._folder.mkdir()
        self.server, self.disk = Server(folder), Disk(folder)
        self.server.start()
        self.store = self.disk.folder.as_uri()
        self.workers = Workers(
            workers,
            folder,
            self.server,
            {
                "POSE_IMAGE_ROOTS": self._folder,
                "POSE_OVERLAY_STORE": self.store,
                "POSE_SEGMENT_FRAMES": _SEGMENT,
                "NULL_NET_MS": net_ms,
                "CHAOS_LEASE_S": lease_s,
            },
        )
        self._faults = Faults(
            self._random, self.server, self.disk, self.workers, outage_s=outage_s, frozen_s=lease_s + 3
        )
        self.ledger = Ledger(redis.Redis(port=self.server.port, socket_timeout=5), "pose")
        self.submitted: Dict[str, Path] = {}
        self.cancelled: List[str] = []
        self.struck: List[str] = []

    def play(self, count: int, kills: int, pause_s: float, log: Any = None) -> None:
        """Submit `count` films over the time of `kills` faults, and cancel each tenth."""
        paths = [
            films.make_film(self._folder / f"{number}.mp4", films.frames(_FRAMES + _MORE * number), gop=25)
            for number in range(_FILMS)
        ]
        self.workers.start()
        self.workers.await_ready()
        submitter = threading.Thread(target=self._submit, args=(paths, count, kills * pause_s / count), daemon=True)
        submitter.start()
        for number in range(kills):
            time.sleep(pause_s * self._random.uniform(0.5, 1.5))
            self.struck.append(self._faults.strike())
            if log:
                log.write(f"{number + 1:>4}  {self.struck[-1]}\n")
                log.flush()
        submitter.join()

    def _submit(self, paths: Sequence[Path], count: int, every_s: float) -> None:
        with PoseClient(self.server.url) as client:
            for number in range(count):
                path, film_id = paths[number % len(paths)], f"film-{number:03}"
                while True:
                    try:
                        job = client.submit_video(path, job_id=film_id, target_height=64)
                        break
                    except BrokerUnavailable:
                        time.sleep(0.2)
                self.submitted[film_id] = path
                time.sleep(every_s)
                if number % 10 == 9:
                    self._cancel(job, film_id)

    def _cancel(self, job: Any, film_id: str) -> None:
        while True:
            try:
                if job.cancel():
                    self.cancelled.append(film_id)
                return
            except BrokerUnavailable:
                time.sleep(0.2)

    def close(self) -> None:
        self.workers.stop()
        self.server.stop()
        self.disk.close()


def account(run: FilmRun, patience_s: float) -> Tuple[Counter, List[str]]:
    """What became of the films, and what is not as it must be."""
    faults: List[str] = []
    deadline = time.monotonic() + patience_s
    waiting = set(run.submitted)
    while waiting and time.monotonic() < deadline:
        waiting = {film for film in waiting if run.ledger.state(film) not in (*ENDED, "dead")}
        time.sleep(0.3)
    faults += [f"{film} has not ended: {run.ledger.show(film)}" for film in sorted(waiting)]
    with PoseClient(run.server.url, overlay_store=run.store) as client:
        outcomes = dict(client.ended(sorted(run.submitted)))
        for film in sorted(set(run.submitted) - set(run.cancelled)):
            outcome = outcomes.get(film)
            if isinstance(outcome, VideoResult):
                faults += _flaws(client, film, outcome, int(run.submitted[film].stem))
            else:
                faults.append(f"{film} ended with {outcome!r}")
    names = ("pose", "unacked", "pose:running", "pose:later", "pose:parts")
    while left := [name for name in names if run.server.client.exists(name)]:
        if time.monotonic() > deadline:
            faults.append(f"left in Redis: {left}")
            break
        time.sleep(0.3)
    if dead := list(run.ledger.dead()):
        faults.append(f"there are dead letters: {dead}")
    ends = _ends(run.server)
    faults += [f"{job} ended {times} times" for job, times in ends.items() if times > 1]
    faults += [f"{film} has no end" for film in run.submitted if not ends[film]]
    return Counter(run.ledger.state(film) for film in run.submitted), faults


def _flaws(client: PoseClient, film: str, result: VideoResult, number: int) -> List[str]:
    """What is wrong with a film's result: each of its frames must be there once, and drawn once."""
    expected = _FRAMES + _MORE * number
    assert isinstance(result.overlay, Overlay)
    lines = gzip.decompress(client.fetch(result.keypoints, film)).splitlines()
    numbers = [json.loads(line)["frame"] for line in lines]
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(client.fetch(result.overlay, film))
        file.flush()
        with av.open(file.name) as drawn:
            shown = [films.number_in(frame.to_ndarray(format="bgr24")) for frame in drawn.decode(video=0)]
    wanted = list(range(expected))
    return [
        f"{film}: {what} are {found}, not 0 to {expected - 1}"
        for what, found in (("its lines", numbers), ("its drawn frames", shown))
        if found != wanted
    ]


def _ends(server: Server) -> Counter:
    """By everything that Redis was ever told: how often each film has entered a final state."""
    ends: Counter = Counter()
    for words in server.written():
        name = words[1].decode(errors="replace") if len(words) > 2 else ""
        if words[0].upper() == b"HSET" and name.startswith("pose:job:") and not part_of(name[len("pose:job:") :]):
            fields = dict(zip(words[2::2], words[3::2]))
            ends[name[len("pose:job:") :]] += fields.get(b"state", b"").decode() in (*ENDED, "dead")
    return ends


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The long form; prints what struck, and what became of the films."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--films", type=int, default=50)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between two faults")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--outage", type=float, default=10.0, help="seconds for which Redis is away")
    parser.add_argument("--net-ms", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--patience", type=float, default=300, help="seconds within which the last film must end")
    told = parser.parse_args(arguments)
    print(f"seed {told.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run = FilmRun(
            Path(folder),
            seed=told.seed,
            workers=told.workers,
            outage_s=told.outage,
            lease_s=10,
            net_ms=told.net_ms,
        )
        try:
            run.play(told.films, told.kills, told.pause, sys.stdout)
            outcomes, faults = account(run, told.patience)
            print(dict(outcomes), f"{len(run.struck)} faults, {run.workers.restarts} workers restarted")
            for fault in faults:
                print(f"✗ {fault}")
            if faults:
                print(run.workers.log.read_text(errors="replace")[-5000:])
        finally:
            run.close()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
