"""Films: how fast they go through the queue, over how many workers, and in how much memory.

    make bench-video    (or: python -m benchmarks.video [part …])

- net: frames a second of a film of 640×480 with the default net, keypoints only, beside the same frames in a bare loop,
  which reads, estimates and does nothing else, and beside the same frames as single jobs, in turn; then with the film
  drawn.
- null: the same with a null net, keypoints only.
- scale: 1 to 8 workers whose null net takes 100 ms a frame: frames a second, of what there would be were there nothing
  but nets.
- hour: an hour of film at 25 frames a second with a null net: the memory of each process, at the most, in each tenth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import av
import cv2
import numpy as np
import psutil

from benchmarks.stand import Workers, kind_of, one_worker, photograph, through
from worker.cli.local import embedded_redis
from worker.client import PoseClient
from worker.engine import load
from worker.engine.net import Net
from worker.pose.estimator import EstimateOptions, Estimator
from worker.settings import read_settings
from worker.video.film import Bounds, probe
from worker.video.plan import plan
from worker.video.reader import read_frames

#: What is to be reached: shares of the bare loop and of ideal, and times the rate of single jobs.
OF_BARE, OF_SINGLE, OF_IDEAL = 0.95, 2.5, 0.85
_BOUNDS = Bounds(10**8, 100.0, 1e6, 10**6)
_KEYPOINTS: Dict[str, Any] = {"overlay": False}
#: Milliseconds of a frame in slow motion.
_SLOW_MS = 100


def _film(path: Path, pictures: Iterator[np.ndarray], fps: int = 25) -> Path:
    """An MP4 of pictures, uint8 (480, 640, 3) BGR, with a key frame every second."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        stream.codec_context.gop_size = fps
        for picture in pictures:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        output.mux(stream.encode(None))
    return path


def _pan(folder: Path, count: int) -> Iterator[np.ndarray]:
    """A camera that moves over a photograph, to and fro."""
    picture = cv2.resize(cv2.imread(str(photograph(folder))), (960, 720), interpolation=cv2.INTER_LINEAR)
    for number in range(count):
        x, y = (round(side * (0.5 - 0.5 * np.cos(number / 40))) for side in (320, 240))
        yield np.ascontiguousarray(picture[y : y + 480, x : x + 640])


def _bare(path: Path, net: Net) -> float:
    """Frames a second of a loop that reads and estimates."""
    manifest = net.manifest
    estimator = Estimator(net, stride=manifest.input.stride, offset=manifest.heatmaps.offset)
    begun, count = time.perf_counter(), 0
    with path.open("rb") as file:
        film = probe(file, path.name, _BOUNDS)
        for segment in plan(film):
            for frame in read_frames(file, film.head(), segment, path.name, _BOUNDS):
                estimator.estimate([frame.pixels], EstimateOptions())
                count += 1
    return count / (time.perf_counter() - begun)


def _queued(client: PoseClient, path: Path, **options: Any) -> float:
    """Frames a second of a film through the queue, from submission to result."""
    begun = time.perf_counter()
    result = client.submit_video(path, **options).result(3600)
    return result.frames / (time.perf_counter() - begun)


def _compare(folder: Path, frames: int, rounds: int, net: Net, **variables: Any) -> None:
    path = _film(folder / "film.mp4", _pan(folder, frames))
    stills = [folder / f"{number:05}.jpg" for number in range(frames)]
    for still, picture in zip(stills, _pan(folder, frames)):
        cv2.imwrite(str(still), picture)
    rows: List[Tuple[float, float, float]] = []
    with embedded_redis() as url, one_worker(url, folder, **variables) as (_, client):
        for _ in range(rounds + 1):
            single = frames / through(client, stills, _KEYPOINTS)
            rows.append((_queued(client, path, **_KEYPOINTS), _bare(path, net), single))
        drawn = statistics.median(_queued(client, path) for _ in range(rounds))
    rows = rows[1:]
    film, bare, single = (statistics.median(column) for column in zip(*rows))
    of_bare, of_single = (statistics.median(row[0] / row[side] for row in rows) for side in (1, 2))
    print(f"film {film:.2f} frames/s, bare loop {bare:.2f}, single jobs {single:.2f}; film drawn {drawn:.2f}")
    print(f"of the bare loop {of_bare:.2f}, of single jobs {of_single:.2f}")


def net(folder: Path) -> None:
    """The default net."""
    threads = len(os.sched_getaffinity(0))
    loaded = load(read_settings({}).models_dir / "mobilenet_thin", threads=threads)
    print(f"net, to reach {OF_BARE} of the bare loop:")
    _compare(folder, 400, 3, loaded)


def null(folder: Path) -> None:
    """A null net."""
    print(f"null, to reach {OF_SINGLE} × single jobs:")
    _compare(folder, 1500, 3, load(read_settings({}).models_dir / "mobilenet_thin", engine="null"), POSE_ENGINE="null")


def scaled(folder: Path) -> None:
    """1 to 8 workers in slow motion."""
    path = _film(folder / "film.mp4", _pan(folder, 1920))
    for count in (1, 2, 4, 8):
        frames = 240 * count
        with embedded_redis() as url:
            slow = {"POSE_ENGINE": "null", "NULL_NET_MS": _SLOW_MS, "POSE_CPU_WORKERS": count, "POSE_SLOTS": 2}
            workers = Workers(url, folder, POSE_SEGMENT_FRAMES=10, **slow)
            for number in range(count):
                workers.add(f"cpu{number}")
            workers.await_ready()
            try:
                with PoseClient(url) as client:
                    _queued(client, path, max_frames=20 * count, target_height=64, **_KEYPOINTS)
                    rate = _queued(client, path, max_frames=frames, target_height=64, **_KEYPOINTS)
            finally:
                workers.stop()
        ideal = count * 1000 / _SLOW_MS
        print(f"scale: {count} workers {rate:.1f} frames/s, of ideal {rate / ideal:.2f} (to reach {OF_IDEAL})")


def hour(folder: Path) -> None:
    """An hour of film; the memory of a worker's processes."""
    path = _film(folder / "hour.mp4", _pan(folder, 90_000))
    peaks: List[Dict[str, int]] = []
    with embedded_redis() as url, one_worker(url, folder, POSE_ENGINE="null") as (workers, client):
        parent = psutil.Process(workers.children[0].pid)
        job = client.submit_video(path, target_height=64, **_KEYPOINTS)
        over = threading.Event()

        def watch() -> None:
            while not over.wait(1.0):
                held: Dict[str, int] = {}
                for one in [parent, *parent.children(recursive=True)]:
                    kind = kind_of(one, parent)
                    held[kind] = max(held.get(kind, 0), one.memory_info().rss >> 20)
                peaks.append(held)

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = time.perf_counter()
        result = job.result(3600)
        spent = time.perf_counter() - begun
        over.set()
        watcher.join()
    print(
        f"hour: {result.frames} frames in {spent:.0f} s, {result.frames / spent:.0f} a second, {result.segments} parts"
    )
    for tenth in np.array_split(np.arange(len(peaks)), 10):
        print("hour, MB at the most:", _most([peaks[number] for number in tenth]))


def _most(peaks: Sequence[Dict[str, int]]) -> Dict[str, int]:
    return {kind: max(one.get(kind, 0) for one in peaks) for kind in ("parent", "net process", "slots")}


PARTS: Dict[str, Callable[[Path], None]] = {"net": net, "null": null, "scale": scaled, "hour": hour}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all if none is named")
    for name in parser.parse_args().parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main()
