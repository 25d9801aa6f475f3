"""OpenTelemetry traces, where POSE_TRACING asks for them: a span for each attempt at a job, and one for each stage.

The sender's trace context travels in the message's headers (W3C ``traceparent`` and ``tracestate``), as
``opentelemetry-instrumentation-celery`` sends it too. Where spans go is told by OpenTelemetry's own variables:
``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER`` and so on.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from worker.errors import SettingsError

if TYPE_CHECKING:
    from worker.jobs.outcome import Outcome
    from worker.settings import Settings

#: Milliseconds for which a collector that is away may hold up a slot that ends.
_FLUSH_MS = 2000


class Lap(NamedTuple):
    """One stage that has run; times are those of time.perf_counter, in seconds."""

    stage: str
    begun: float
    ended: float


def headers() -> Dict[str, str]:
    """In a client: the trace context that is current, as message headers; none if OpenTelemetry is not in use."""
    carrier: Dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry import propagate

        propagate.inject(carrier)
    return carrier


def check(settings: Settings) -> None:
    """Raises SettingsError if traces are asked for and cannot be made."""
    if settings.tracing and importlib.util.find_spec("opentelemetry") is None:
        raise SettingsError(
            "POSE_TRACING is 1, but OpenTelemetry is not installed; "
            "install deploy/requirements-otel.txt, or set POSE_TRACING to 0."
        )


class Tracer:
    """A slot's way to the collector; made after the fork, for it has a thread.

    Args:
        worker: its name, ``gpu3@host``.
    """

    def __init__(self, worker: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        about = {"service.instance.id": worker, "host.name": socket.gethostname()}
        if "OTEL_SERVICE_NAME" not in os.environ:
            about["service.name"] = "pose-worker"
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("pose-worker")

    def tell(self, request: Any, outcome: Outcome, laps: List[Lap]) -> None:
        """Make the spans of an attempt that has just ended.

        Args:
            request: Celery's.
            laps: the stages that have run.
        """
        from opentelemetry import propagate, trace

        clock = time.time() - time.perf_counter()
        carrier = {name: value for name, value in (request.headers or {}).items() if isinstance(value, str)}
        span = self._tracer.start_span(
            "pose.estimate",
            context=propagate.extract(carrier),
            kind=trace.SpanKind.CONSUMER,
            attributes=_attributes(request, outcome),
            start_time=_ns(outcome.ended_at - outcome.seconds),
        )
        inside = trace.set_span_in_context(span)
        for lap in laps:
            self._tracer.start_span(lap.stage, context=inside, start_time=_ns(clock + lap.begun)).end(
                _ns(clock + lap.ended)
            )
        if outcome.error is not None:
            span.set_status(trace.StatusCode.ERROR, f"{outcome.error_name}: {outcome.error}")
        span.end(_ns(outcome.ended_at))

    def stop(self) -> None:
        """Send what has not been sent."""
        self._provider.force_flush(_FLUSH_MS)


def _attributes(request: Any, outcome: Outcome) -> Dict[str, Any]:
    told: Dict[str, Any] = {
        "messaging.system": "celery",
        "messaging.operation.type": "process",
        "messaging.destination.name": str((request.delivery_info or {}).get("routing_key") or ""),
        "messaging.message.id": outcome.job_id,
        "pose.image": outcome.image.encode("utf-8", "backslashreplace").decode(),
        "pose.attempt": outcome.attempt,
        "pose.outcome": outcome.kind,
    }
    if outcome.result:
        told["pose.people"] = len(outcome.result["people"])
    if outcome.error is not None:
        told["error.type"] = outcome.error_name
    return told


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def tracer(settings: Settings, worker: str) -> Optional[Tracer]:
    """The slot's tracer, if POSE_TRACING asks for one."""
    return Tracer(worker) if settings.tracing else None
