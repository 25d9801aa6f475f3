"""One worker's metrics for Prometheus: ``http://<host>:<POSE_METRICS_PORT + the worker's number>/metrics``.

A scrape reads the board and the last look at the queues; it waits for nothing. Every metric's name stands in this
file once; dashboards and alerts use no others.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.children import Rounds
from worker.device import board as boards
from worker.device.board import Board, SlotRow, now
from worker.device.gpus import MemoryWatch
from worker.device.pin import Device, own_engine, own_precision
from worker.device.tally import ATTEMPTS, BATCH_SIZES, ERRORS, OUTCOMES, PEOPLE, SECONDS, STAGES, WAITS, merged
from worker.errors import SettingsError
from worker.observe.backlog import Backlog
from worker.settings import Settings

#: Seconds between two looks at the queue.
LOOK_S = 2.0
_PAGE_BYTES = 4096

Labels = Dict[str, str]


class Exporter:
    """One worker's metrics, and the thread that answers Prometheus.

    Args:
        name: the worker's, ``gpu3@host``.
        slots: how many the worker has.
        memory: the device's.
        benched: whether the worker died too often, and is not started for a while.

    Raises:
        SettingsError: the port is taken.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        device: Device,
        board: Board,
        slots: int,
        memory: Optional[MemoryWatch] = None,
        benched: bool = False,
    ) -> None:
        self._backlog = Backlog(settings)
        self._collector = WorkerMetrics(
            settings, name, device, board, slots, self._backlog, memory or MemoryWatch(None), benched
        )
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self._collector)
        port = settings.metrics_port + number(name)
        try:
            self._server, _ = start_http_server(port, settings.metrics_bind, registry)
        except (OSError, OverflowError) as exc:
            raise SettingsError(
                f"POSE_METRICS_PORT is {settings.metrics_port}: {name} cannot listen on {settings.metrics_bind}:{port} "
                f"({exc}); choose another port, or 0 for no metrics."
            ) from exc
        self._rounds = Rounds("metrics", LOOK_S, self._backlog.look)
        self._rounds.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def ready(self) -> None:
        """The worker consumes from now on."""
        self._collector.ready = True

    def forget(self) -> None:
        """In a child: the socket is the parent's alone, so that the port is free when the parent is gone."""
        self._server.socket.close()

    def stop(self) -> None:
        """Answer no more."""
        self._rounds.stop()
        self._server.shutdown()
        self._server.server_close()


class WorkerMetrics(Collector):
    """One worker's metrics, made anew for each scrape.

    Attributes:
        ready: whether the worker consumes.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        device: Device,
        board: Board,
        slots: int,
        backlog: Backlog,
        memory: MemoryWatch,
        benched: bool,
    ) -> None:
        self._settings, self._device, self._board, self._backlog = settings, device, board, backlog
        self._rows: List[SlotRow] = [board.slot(index) for index in range(slots)]
        self._own = {"worker": name}
        self._memory, self._benched = memory, benched
        self.ready = False

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        yield from self._of_worker()
        yield from self._of_jobs()
        yield from self._of_net()
        yield from self._of_slots()
        yield from self._of_memory()
        yield from self._of_queue()

    def _of_worker(self) -> Iterator[Metric]:
        about = {
            "device": self._device.title,
            "model": self._settings.model,
            "engine": own_engine(self._settings, self._device.torch_name),
            "precision": own_precision(self._settings, self._device.torch_name),
            "queues": ",".join(self._settings.consumed),
        }
        yield self._gauge("pose_worker_info", "What the worker is; always 1.", [(about, 1)])
        consumes = self.ready and not self._board.worker.leaving
        yield self._gauge("pose_worker_ready", "1 while the worker consumes.", [({}, consumes)])
        about_bench = "1 while the worker is not started, for it died too often."
        yield self._gauge("pose_worker_benched", about_bench, [({}, self._benched)])

    def _of_jobs(self) -> Iterator[Metric]:
        tallies = [row.tally for row in self._rows]
        outcomes = [
            ({"outcome": name}, sum(one.outcomes[index] for one in tallies)) for index, name in enumerate(OUTCOMES)
        ]
        outcomes.append(({"outcome": "revoked"}, self._board.worker.revoked))
        yield self._counter("pose_jobs", "Attempts at jobs, by what they ended in.", outcomes)
        errors = [({"error": name}, sum(one.errors[index] for one in tallies)) for index, name in enumerate(ERRORS)]
        yield self._counter(
            "pose_job_errors", "Attempts that failed, by error.", [one for one in errors if one[1]] or errors[:1]
        )
        seconds = [one.seconds for one in tallies]
        yield self._histogram("pose_job_seconds", "From message to stored outcome.", [({}, seconds)], SECONDS)
        waits = [one.wait for one in tallies]
        yield self._histogram("pose_job_wait_seconds", "From submission to the first attempt.", [({}, waits)], WAITS)
        stages = [({"stage": name}, [one.stages[index] for one in tallies]) for index, name in enumerate(STAGES)]
        yield self._histogram("pose_stage_seconds", "Time of each stage of a job.", stages, SECONDS)
        people = [one.people for one in tallies]
        yield self._histogram("pose_people_per_image", "People found in an image.", [({}, people)], PEOPLE)
        attempts = [one.attempts for one in tallies]
        yield self._histogram("pose_job_attempts", "Attempts that an ended job took.", [({}, attempts)], ATTEMPTS)

        # The parts of a film's work are no jobs of a sender's, and counted here alone.
        segments, frames = (sum(getattr(one, name) for one in tallies) for name in ("segments", "frames"))
        yield self._counter("pose_video_segments", "Segments of films that were looked at, or drawn.", [({}, segments)])
        yield self._counter("pose_video_frames", "Frames in these segments.", [({}, frames)])

    def _of_net(self) -> Iterator[Metric]:
        net, inline = self._board.net, self._settings.inline
        yield self._histogram(
            "pose_batch_size", "Inputs in one pass of the net.", [({}, [net.batch_sizes])], BATCH_SIZES
        )
        ready = self.ready if inline else net.state == boards.READY
        yield self._gauge("pose_net_ready", "1 while the net is loaded and answers.", [({}, ready)])
        busy_s = now() - net.busy_since if net.busy_since else 0.0
        yield self._gauge("pose_batch_in_flight_seconds", "Age of the pass that runs now.", [({}, max(0.0, busy_s))])
        restarts = max(0, net.starts - 1)
        yield self._counter("pose_net_restarts", "Times that the net process was started again.", [({}, restarts)])
        yield self._counter(
            "pose_net_out_of_memory", "Passes that did not fit into the device.", [({}, net.out_of_memory)]
        )

    def _of_slots(self) -> Iterator[Metric]:
        busy = [now() - row.busy_since for row in self._rows if row.busy_since]
        yield self._gauge("pose_slots", "Jobs that can be in work at a time.", [({}, len(self._rows))])
        yield self._gauge("pose_slots_busy", "Jobs in work.", [({}, len(busy))])
        oldest = max(busy, default=0.0)
        yield self._gauge("pose_job_in_work_seconds", "Age of the longest attempt in work.", [({}, max(0.0, oldest))])
        restarts = sum(max(0, row.tally.starts - 1) for row in self._rows)
        yield self._counter("pose_slot_restarts", "Slots that replaced a dead one.", [({}, restarts)])

    def _of_memory(self) -> Iterator[Metric]:
        memory = self._memory.seen
        if memory is not None:
            yield self._gauge("pose_device_memory_used_bytes", "In use on the device, by all.", [({}, memory.used)])
            yield self._gauge("pose_device_memory_total_bytes", "What the device has.", [({}, memory.total)])
        held = [
            ({"process": "net"}, resident_bytes(self._board.net.pid)),
            ({"process": "slots"}, sum(resident_bytes(row.pid) for row in self._rows)),
        ]
        yield self._gauge("pose_resident_memory_bytes", "Main memory held by the processes.", held)

    def _of_queue(self) -> Iterator[Metric]:
        seen = self._backlog.seen
        yield self._gauge("pose_broker_up", "1 while the broker and the ledger answer.", [({}, seen is not None)])
        if seen is None:
            return
        depth = [({"queue": name}, count) for name, count in seen.depth.items()]
        yield self._gauge("pose_queue_depth", "Messages that wait in a queue.", depth)
        ages = [({"queue": name}, seconds) for name, seconds in seen.oldest_s.items()]
        yield self._gauge("pose_queue_oldest_seconds", "Age of the oldest message that waits in a queue.", ages)
        jobs = [({"state": name}, count) for name, count in seen.jobs.items()]
        about = "Jobs in work, segments too; that wait for their next attempt (later); films in segments (parts)."
        yield self._gauge("pose_ledger_jobs", about, jobs)
        yield self._gauge("pose_dead_letters", "Jobs that were given up, and await a person.", [({}, seen.dead)])

    def _gauge(self, name: str, meaning: str, values: Sequence[Tuple[Labels, float]]) -> Metric:
        return self._filled(GaugeMetricFamily, name, meaning, values)

    def _counter(self, name: str, meaning: str, values: Sequence[Tuple[Labels, float]]) -> Metric:
        return self._filled(CounterMetricFamily, name, meaning, values)

    def _filled(self, family: Any, name: str, meaning: str, values: Sequence[Tuple[Labels, float]]) -> Metric:
        labels = [{**self._own, **more} for more, _ in values]
        metric: Metric = family(name, meaning, labels=list(labels[0]) if labels else list(self._own))
        for own, (_, value) in zip(labels, values):
            metric.add_metric(list(own.values()), float(value))  # type: ignore[attr-defined]
        return metric

    def _histogram(
        self, name: str, meaning: str, values: Sequence[Tuple[Labels, Sequence[Any]]], bounds: Sequence[float]
    ) -> Metric:
        metric = HistogramMetricFamily(name, meaning, labels=[*self._own, *values[0][0]])
        for more, histograms in values:
            buckets, total = merged(histograms, bounds)
            metric.add_metric([*self._own.values(), *more.values()], buckets, total)
        return metric


def number(name: str) -> int:
    """The number in a worker's name, 3 for ``gpu3@host``; 0 if there is none."""
    found = re.search(r"(\d+)$", name.partition("@")[0])
    return int(found.group(1)) if found else 0


def resident_bytes(pid: int) -> int:
    """Main memory that process `pid` holds; 0 if it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * _PAGE_BYTES
    return 0
