"""A small OpenTelemetry collector for tests: OTLP over HTTP and over gRPC."""

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from serve_app.tracing.build import TelemetrySender, build
from serve_app.tracing.switch import Signals
from serve_app.tracing_settings import TracingSettings

_SPANS = Signals(spans=True, metrics=False, ray_metrics=False)


@dataclass(frozen=True)
class Received:
    """One span. Times are seconds since 1970, ids are in hexadecimal digits."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    ended: float
    status: str
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    resource: dict[str, Any]


class Collector:
    """Everything that was sent, and the addresses to send to.

    `refuses`: answers 503. `holds`: answers nothing until `go_on` is set.
    """

    def __init__(self) -> None:
        self.http = self.grpc = ""
        self.refuses = False
        self.holds = False
        self.go_on = Event()
        self.requests = 0
        self.clear()

    def clear(self) -> None:
        self.spans: list[Received] = []
        self.metrics: list[Any] = []

    def request(self, data: Any) -> None:
        """Take a request of either protocol."""
        self.requests += 1
        if self.holds:
            self.go_on.wait(20)
        if isinstance(data, trace_service_pb2.ExportTraceServiceRequest):
            self.spans += _spans(data)
        else:
            scopes = (scope for sent in data.resource_metrics for scope in sent.scope_metrics)
            self.metrics += [metric for scope in scopes for metric in scope.metrics]

    def named(self, name: str) -> list[Received]:
        return [span for span in list(self.spans) if span.name == name]

    def of(self, trace_id: str) -> list[Received]:
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    @property
    def roots(self) -> list[Received]:
        """The spans of requests."""
        return [span for span in list(self.spans) if span.kind == "SERVER"]

    def metric(self, name: str) -> Any:
        """Return the last state of a metric."""
        return [metric for metric in self.metrics if metric.name == name][-1]


def _spans(data: Any) -> Iterator[Received]:
    for sent in data.resource_spans:
        resource = attributes(sent.resource.attributes)
        for scope in sent.scope_spans:
            for span in scope.spans:
                yield _span(span, resource)


def _span(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began=span.start_time_unix_nano / 1e9,
        ended=span.end_time_unix_nano / 1e9,
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        attributes=attributes(span.attributes),
        events={event.name: attributes(event.attributes) for event in span.events},
        resource=resource,
    )


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


_REQUESTS: dict[str, Any] = {
    "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
    "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
}


@contextmanager
def collector() -> Iterator[Collector]:
    running = Collector()
    with _http(running) as running.http, _grpc(running) as running.grpc:
        try:
            yield running
        finally:
            running.go_on.set()


@contextmanager
def _http(receiver: Collector) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections, as real collectors do
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if not receiver.refuses:
                receiver.request(_REQUESTS[self.path].FromString(body))
            self.send_response(503 if receiver.refuses else 200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _grpc(receiver: Collector) -> Iterator[str]:
    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            receiver.request(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            receiver.request(request)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def sender(
    to: str, content: bool = False, signals: Signals = _SPANS, **variables: str
) -> TelemetrySender:
    """Build a sender of all steps, at once, to an address, with `variables` in the environment."""
    settings = TracingSettings(endpoint=to, content=content)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"OTEL_BSP_SCHEDULE_DELAY": "5", **variables}.items():
            patch.setenv(name, value)
        return build(settings, signals, {"service.instance.id": "one"}, min_step_s=0)
