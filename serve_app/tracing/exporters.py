"""Sends spans to a collector. A collector that is away or slow costs spans, never requests."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import Protocol

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
    OTEL_EXPORTER_OTLP_PROTOCOL,
)
from opentelemetry.sdk.metrics.export import MetricExporter

from serve_app.errors import SettingsError
from serve_app.tracing.encoder import SpanEncoder
from serve_app.tracing.spans import EndedSpan

logger = logging.getLogger("ray.serve")

_SDK_LOGGERS = ("opentelemetry.exporter.otlp", "opentelemetry.sdk._shared_internal")
_SAY_EVERY_S = 60.0
_MAX_QUEUE, _BATCH, _DELAY_MS = 2048, 512, 5000
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


class SpanExporter(Protocol):
    """Sends encoded spans to a collector."""

    def send(self, request: ExportTraceServiceRequest) -> bool:
        """Send spans, several times if need be; tell whether the collector has taken them."""

    def shutdown(self) -> None: ...


class SpanQueue:
    """Hands ended spans to a thread that encodes and sends them. A full queue drops new ones.

    Must be closed. Its sizes and its delay are those of the SDK's own queue. Raises ValueError for
    sizes in the environment that can't work.
    """

    def __init__(self, exporter: SpanExporter, encoder: SpanEncoder, losses: Losses) -> None:
        self._exporter = exporter
        self._encoder = encoder
        self._losses = losses
        self._max = _number(OTEL_BSP_MAX_QUEUE_SIZE, _MAX_QUEUE)
        self._batch = _number(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, _BATCH)
        if self._batch > self._max:
            raise ValueError(
                f"{OTEL_BSP_MAX_EXPORT_BATCH_SIZE} ({self._batch}) must not be above "
                f"{OTEL_BSP_MAX_QUEUE_SIZE} ({self._max})"
            )
        self._delay_s = _number(OTEL_BSP_SCHEDULE_DELAY, _DELAY_MS) / 1000
        self._queue: deque[EndedSpan] = deque()
        self._added = self._taken = 0  # spans; each is written by one thread alone
        self._is_closed = False
        self._awake = Event()
        self._thread = Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def add(self, ended: EndedSpan) -> None:
        """Take a span and its steps, or count them as lost."""
        size, waiting = ended.size, self._added - self._taken
        if (waiting and waiting + size > self._max) or self._is_closed:
            self._losses.add(size)
            return
        self._added += size
        self._queue.append(ended)
        if waiting + size >= self._batch and not self._awake.is_set():
            self._awake.set()

    def close(self) -> None:
        """Send the queued spans, within a bound: the collector may be away."""
        self._is_closed = True
        self._awake.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._is_closed:
            self._awake.wait(self._delay_s)
            self._awake.clear()
            self._send_all()
        self._send_all()
        self._exporter.shutdown()

    def _send_all(self) -> None:
        while self._queue:
            before, is_sent = self._taken, False
            # An exception of any kind costs these spans alone, as in the SDK's own queue.
            with suppress(Exception):
                is_sent = self._exporter.send(self._encoder.encode(self._batch_of_queue()))
            if not is_sent:
                self._losses.add(self._taken - before)

    def _batch_of_queue(self) -> Iterator[EndedSpan]:
        """Take a batch from the queue."""
        size = 0
        while self._queue and (not size or size + self._queue[0].size <= self._batch):
            ended = self._queue.popleft()
            size += ended.size
            self._taken += ended.size
            yield ended


def _number(variable: str, default: int) -> int:
    """Return the value of a variable. Raises ValueError unless it is a positive number."""
    value = int(os.environ.get(variable) or default)
    if value <= 0:
        raise ValueError(f"{variable} ({value}) must be positive")
    return value


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
