"""OpenTelemetry traces, where POSE_TRACING asks for them: a span for each attempt at a job, and one for each stage.

The sender's trace context travels in the message's headers (W3C ``traceparent`` and ``tracestate``), as
``opentelemetry-instrumentation-celery`` sends it too. Where spans go is found by OpenTelemetry's own variables:
``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER`` and so on.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, Dict, Optional

from worker.errors import SettingsError

if TYPE_CHECKING:
    from worker.jobs.attempt import AttemptEnd
    from worker.settings import Settings

#: Milliseconds for which a collector that is away may hold up a slot that ends.
_FLUSH_MS = 2000


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

    def trace(self, end: AttemptEnd) -> None:
        """Make the spans of an attempt that has just ended; there are none of a message that was superfluous."""
        if end.kind in ("ignored", "continued"):
            return
        from opentelemetry import propagate, trace

        began = end.ended_at - end.seconds
        carrier = {name: value for name, value in end.message.headers.items() if isinstance(value, str)}
        span = self._tracer.start_span(
            "pose.estimate",
            context=propagate.extract(carrier),
            kind=trace.SpanKind.CONSUMER,
            attributes=_attributes(end),
            start_time=_ns(began),
        )
        inside = trace.set_span_in_context(span)
        for lap in end.laps:
            span_of_lap = self._tracer.start_span(lap.stage, context=inside, start_time=_ns(began + lap.begun))
            span_of_lap.end(_ns(began + lap.ended))
        if end.error is not None:
            span.set_status(trace.StatusCode.ERROR, f"{end.error_name}: {end.error}")
        span.end(_ns(end.ended_at))

    def stop(self) -> None:
        """Send what has not been sent."""
        self._provider.force_flush(_FLUSH_MS)


def _attributes(end: AttemptEnd) -> Dict[str, Any]:
    found: Dict[str, Any] = {
        "messaging.system": "celery",
        "messaging.operation.type": "process",
        "messaging.destination.name": end.message.queue,
        "messaging.message.id": end.job_id,
        "pose.image": end.image.encode("utf-8", "backslashreplace").decode(),
        "pose.attempt": end.attempt,
        "pose.outcome": end.kind,
    }
    if "people" in end.result:
        found["pose.people"] = len(end.result["people"])
    if end.error is not None:
        found["error.type"] = end.error_name
    return found


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def tracer(settings: Settings, worker: str) -> Optional[Tracer]:
    """The slot's tracer, if POSE_TRACING asks for one."""
    return Tracer(worker) if settings.tracing else None
