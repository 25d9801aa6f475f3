"""One running worker seen from outside: by Prometheus, in its log, by an OpenTelemetry collector, in Flower."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple

import pytest

from tests.support import ROOT, clean_environ, wait_until
from tests.support.brokers import free_port
from tests.support.documents import command as command_of
from tests.support.documents import example
from tests.support.metrics import get, scrape
from worker.children import start_child, stop_child
from worker.cli.local import embedded_redis
from worker.client import PoseClient
from worker.errors import PoseError
from worker.observe.heartbeat import read_heartbeats

pytestmark = pytest.mark.queue

QUEUE = "observed"


class Collector:
    """Receives OTLP over HTTP, and keeps it in memory."""

    def __init__(self) -> None:
        self.spans: List[Any] = []
        self.resources: List[Dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.receive(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def receive(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in group.resource.attributes})
            self.spans += [span for scope in group.scope_spans for span in scope.spans]

    def of(self, job_id: str) -> Any:
        """The span of a job."""
        return next((one for one in self.spans if attributes(one).get("messaging.message.id") == job_id), None)


def attributes(span: Any) -> Dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


class Observed(NamedTuple):
    """What the tests of this file look at."""

    broker: str
    log: Path
    metrics: Any
    collector: Collector
    done: List[str]
    failed: str
    context: Dict[str, int]


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """A Redis with no other worker than this file's; the others' would show in Flower."""
    with embedded_redis() as url:
        yield url


@pytest.fixture(scope="module")
def observed(
    broker: str, samples: Path, thin_net: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    """A worker that has done three jobs, of which one was submitted in a trace, and failed at another.

    Its metrics are those of just then: a test that gives it more jobs changes them.
    """
    folder, collector, port = tmp_path_factory.mktemp("observed"), Collector(), free_port()
    told, command = command_of(
        example("README.md", "sh", "worker fleet"), POSE_BROKER_URL=broker, POSE_IMAGE_ROOTS=str(samples)
    )
    variables = {
        **told,
        "POSE_QUEUE": QUEUE,
        "POSE_ENGINE": "null",
        "POSE_WARM_SIZES": "368x280",
        "POSE_HEARTBEAT_DIR": folder,
        "POSE_LOG": "json",
        "POSE_METRICS_PORT": port,
        "POSE_METRICS_BIND": "127.0.0.1",
        "POSE_TRACING": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    environment = {**clean_environ(), **{name: str(value) for name, value in variables.items()}}
    with (folder / "log").open("wb") as log:
        fleet = start_child(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=log)
    try:
        wait_until(lambda: any(one["ready"] for one in read_heartbeats(folder)), 60)
        done, failed, context = _work(broker, samples)
        wait_until(lambda: get(scrape(port), "pose_jobs_total", outcome="failed") == 1)
        metrics = wait_until(lambda: _at_rest(scrape(port)))
        yield Observed(broker, folder / "log", metrics, collector, done, failed, context)
    finally:
        stop_child(fleet, grace_s=10)
        collector.server.shutdown()
        collector.server.server_close()


def _work(broker: str, samples: Path) -> Any:
    from opentelemetry.sdk.trace import TracerProvider

    with PoseClient(broker, queue=QUEUE) as client:
        with TracerProvider(shutdown_on_exit=False).get_tracer("a sender").start_as_current_span("request") as sender:
            jobs = [client.submit(samples / "bus.jpg")]
        jobs += [client.submit(samples / "bus.jpg", overlay=False) for _ in range(2)]
        for job in jobs:
            job.result(30)
        missing = client.submit(samples / "missing.jpg")
        with pytest.raises(PoseError):
            missing.result(30)
    context = sender.get_span_context()
    return [job.id for job in jobs], missing.id, {"trace": context.trace_id, "span": context.span_id}


def test_the_metrics_are_the_true_counts(observed: Observed) -> None:
    samples = observed.metrics
    assert get(samples, "pose_jobs_total", outcome="succeeded") == 3
    assert get(samples, "pose_jobs_total", outcome="retried") == 0
    assert get(samples, "pose_job_errors_total", error="ImageNotFound") == 1
    assert get(samples, "pose_batch_size_sum") == 3
    assert get(samples, "pose_job_attempts_bucket", le="1.0") == 4
    assert get(samples, "pose_job_wait_seconds_count") == 4
    assert get(samples, "pose_people_per_image_count") == 3
    for stage in ("decode", "preprocess", "net", "associate", "overlay", "store"):
        assert get(samples, "pose_stage_seconds_count", stage=stage) == 3
    assert get(samples, "pose_queue_depth", queue=QUEUE) == 0
    assert get(samples, "pose_worker_ready") == 1
    assert get(samples, "pose_dead_letters") == 0


def _at_rest(samples: Any) -> Any:
    """Once no job is in work, and the depth of the queue, which is asked for now and then, says so, too."""
    busy = get(samples, "pose_slots_busy") or get(samples, "pose_queue_depth", queue=QUEUE)
    return samples if get(samples, "pose_broker_up") and not busy else None


def test_the_log_has_one_line_for_each_job(observed: Observed) -> None:
    def told() -> List[Dict[str, Any]]:
        found = [json.loads(line) for line in observed.log.read_text().splitlines() if line.startswith("{")]
        ours = {*observed.done, observed.failed}
        return [line for line in found if line.get("event", "").startswith("job.") and line["job_id"] in ours]

    events = wait_until(lambda: len(told()) >= 4 and told())
    expected = {**dict.fromkeys(observed.done, "job.succeeded"), observed.failed: "job.failed"}
    assert {line["job_id"]: line["event"] for line in events} == expected
    assert Counter(line["event"] for line in events) == {"job.succeeded": 3, "job.failed": 1}
    assert set(events[0]["timings_ms"]) == {"decode", "preprocess", "net", "associate", "overlay", "store", "total"}
    assert "Traceback" not in observed.log.read_text()


def test_a_job_s_spans_continue_the_sender_s_trace(observed: Observed) -> None:
    spans, job_id = observed.collector, observed.done[0]
    job = wait_until(lambda: spans.of(job_id))
    assert int.from_bytes(job.trace_id, "big") == observed.context["trace"]
    assert int.from_bytes(job.parent_span_id, "big") == observed.context["span"]
    stages = [one for one in spans.spans if one.parent_span_id == job.span_id]
    stages.sort(key=lambda one: one.start_time_unix_nano)
    assert [one.name for one in stages] == ["decode", "preprocess", "net", "associate", "overlay", "store"]
    assert job.start_time_unix_nano <= stages[0].start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= job.end_time_unix_nano
    told = attributes(job)
    assert (told["pose.outcome"], told["pose.attempt"], told["messaging.destination.name"]) == ("succeeded", 1, QUEUE)
    assert {"service.name": "pose-worker"}.items() <= spans.resources[0].items()


def test_a_job_without_a_trace_begins_one_and_a_failure_is_seen_in_it(observed: Observed) -> None:
    failed = wait_until(lambda: observed.collector.of(observed.failed))
    assert failed.parent_span_id == b""
    assert failed.status.message.startswith("ImageNotFound: ")
    assert attributes(failed)["error.type"] == "ImageNotFound"


def test_flower_shows_the_worker_and_its_task(observed: Observed, samples: Path, tmp_path: Path) -> None:
    port = free_port()
    options = [f"--port={port}", "--address=127.0.0.1", "--inspect-timeout=2000"]
    command = [sys.executable, "-m", "celery", "--broker", observed.broker, "flower", *options]
    environment = {**clean_environ(), "FLOWER_UNAUTHENTICATED_API": "true"}
    flower = start_child(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=10) as answer:
                return json.loads(answer.read())
        except OSError:
            return None

    try:
        workers = wait_until(lambda: ask("workers?refresh=1"))
        [name] = workers
        assert name.startswith("cpu0@")
        assert workers[name]["registered"] == ["pose.estimate", "pose.video", "pose.video_part"]
        assert [queue["name"] for queue in workers[name]["active_queues"]] == [QUEUE]
        # Flower asks the workers for events every five seconds; what ran before is not in its list.
        with PoseClient(observed.broker, queue=QUEUE) as client:

            def seen() -> Any:
                job = client.submit(samples / "bus.jpg", overlay=False)
                job.result(30)
                time.sleep(0.3)
                task = (ask("tasks") or {}).get(job.id) or {}
                return task if task.get("state") == "SUCCESS" and task["name"] else None

            task = wait_until(seen)
        assert (task["name"], task["worker"]) == ("pose.estimate", name)
        _see(f"http://127.0.0.1:{port}/workers", tmp_path / "workers.png", name)
    finally:
        stop_child(flower, grace_s=5)


def _see(url: str, picture: Path, word: str) -> None:
    """Flower's page as a browser shows it: `word` is on it, and it can be drawn."""
    browser = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
    if browser is None:
        return
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,500", f"--user-data-dir={picture}.d"]
    page = subprocess.run(
        [browser, *options, "--virtual-time-budget=3000", f"--screenshot={picture}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert word in page.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
