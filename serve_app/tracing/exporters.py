"""Sends spans to a collector. A collector that is away or slow costs spans, never requests."""

import logging
import os
from collections.abc import Callable, Sequence
from threading import Thread
from time import monotonic

from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_EXPORTER_OTLP_PROTOCOL,
)
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from serve_app.errors import SettingsError

logger = logging.getLogger("ray.serve")

_SDK_LOGGERS = ("opentelemetry.exporter.otlp", "opentelemetry.sdk._shared_internal")
_SAY_EVERY_S = 60.0
_MAX_QUEUE = 2048
_STOP_S = 2.0
_PROTOCOLS = ("http/protobuf", "grpc")


class Losses:
    """Counts losses, and logs them at most once a minute. `what`: spans or metrics."""

    def __init__(self, what: str, clock: Callable[[], float] = monotonic) -> None:
        self._what = what
        self._clock = clock
        self._lost = 0
        self._quiet_until = 0.0

    def add(self, number: int) -> None:
        self._lost += number
        now = self._clock()
        if now >= self._quiet_until:
            logger.warning(
                "lost %s (%d): the OpenTelemetry collector is away or slow", self._what, self._lost
            )
            self._lost, self._quiet_until = 0, now + _SAY_EVERY_S


class SpanQueue(SpanProcessor):
    """Hands spans to a thread that sends them in batches. A full queue drops new ones."""

    def __init__(self, exporter: SpanExporter, losses: Losses) -> None:
        self._losses = losses
        self._max = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, _MAX_QUEUE))
        self._queued = 0
        self._sender = _Sender(exporter, losses)
        self._batches = BatchSpanProcessor(self._sender, max_queue_size=self._max)

    def on_end(self, span: ReadableSpan) -> None:
        if self._queued - self._sender.taken >= self._max:
            self._losses.add(1)
            return
        self._queued += 1
        self._batches.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Send the queued spans, within a bound: the collector may be away."""
        thread = Thread(target=self._batches.shutdown, daemon=True)
        thread.start()
        thread.join(_STOP_S)


class _Sender(SpanExporter):
    """Sends batches, and notes those that were lost. `taken`: spans that have left the queue."""

    def __init__(self, exporter: SpanExporter, losses: Losses) -> None:
        self._exporter = exporter
        self._losses = losses
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._losses.add(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def quieten_sdk() -> None:
    """Silence the SDK's loggers, which write a line for each attempt at each batch."""
    for name in _SDK_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def span_exporter(endpoint: str | None) -> SpanExporter:
    """Return the exporter to `endpoint`, else to that of the environment.

    Raises SettingsError for a protocol that does not exist or is not installed.
    """
    if _protocol("TRACES") == "grpc":
        from serve_app.tracing.grpc_exporter import GrpcSpanExporter

        return GrpcSpanExporter(endpoint)
    from serve_app.tracing.http_exporter import HttpSpanExporter

    return HttpSpanExporter(endpoint and f"{endpoint.rstrip('/')}/v1/traces")


def metric_exporter(endpoint: str | None) -> MetricExporter:
    """Return the exporter of metrics, see `span_exporter`."""
    if _protocol("METRICS") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
            OTLPMetricExporter as GrpcExporter,
        )

        return GrpcExporter(endpoint)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint and f"{endpoint.rstrip('/')}/v1/metrics")


def _protocol(signal: str) -> str:
    """Return the protocol that the environment names. Raises SettingsError for another one."""
    usual = os.environ.get(OTEL_EXPORTER_OTLP_PROTOCOL, "http/protobuf")
    name = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    protocol = os.environ.get(name, usual)
    if protocol not in _PROTOCOLS:
        raise SettingsError(
            f"{OTEL_EXPORTER_OTLP_PROTOCOL} ({protocol}) must be one of {', '.join(_PROTOCOLS)}"
        )
    return protocol
