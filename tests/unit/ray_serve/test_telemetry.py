"""The traces of a replica: decided at its start, by its settings and environment."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.api.http import Request
from serve_app.api.request_trace import RequestTrace
from serve_app.errors import SettingsError
from serve_app.ray_serve import telemetry
from serve_app.ray_serve.telemetry import Telemetry, new_telemetry
from serve_app.settings import Settings
from serve_app.tracing.replica import TracedCalls
from tests.support.otlp import collector

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """As within one."""
    name = SimpleNamespace(unique_id="r1")
    context = SimpleNamespace(replica_id=name, app_name="default", deployment="pool")
    monkeypatch.setattr(telemetry.serve, "get_replica_context", lambda: context)


async def answer(call: Any) -> Any:
    return call


def test_it_is_off_without_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then calls pass as they are."""
    monkeypatch.delenv(ENDPOINT, raising=False)
    made = new_telemetry(Settings())
    handler = SimpleNamespace(send=answer)
    assert (made.tracer, made.observers, made.counters) == (None, (), ())
    assert made.traced(handler, "r1") is handler
    made.close()


@pytest.mark.usefixtures("replica")
def test_a_worker_traces_calls_and_counts_no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gateway counts them."""
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    made = new_telemetry(Settings(), has_requests=False)
    assert isinstance(made.traced(SimpleNamespace(send=answer), "r1"), TracedCalls)
    assert made.counters == ()
    made.close()


@pytest.mark.usefixtures("replica")
def test_spans_are_made_after_their_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """With those of other requests, by the counters; their times are those of the request."""
    with collector() as received:
        monkeypatch.setenv(ENDPOINT, received.http)
        made = new_telemetry(Settings())
        trace = traced_request(made)
        trace.ended = trace.started + 0.5
        for counter in made.counters:
            counter.count(trace)
        for observer in made.observers:
            observer.close()
    (span,) = received.roots
    assert span.ended - span.began == pytest.approx(0.5, abs=1e-3)


@pytest.mark.usefixtures("replica")
def test_spans_that_fail_are_no_loss_for_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next requests of the batch are counted."""
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    made = new_telemetry(Settings())
    trace = traced_request(made)
    trace.path = "/unknown"
    (spans,) = made.counters
    spans.count(trace)
    made.close()
    assert caplog.messages == ["failed to make the spans of a request"]


def traced_request(made: Telemetry) -> RequestTrace:
    """Begin a request that is traced."""
    trace = RequestTrace("POST", "/v1/chat/completions", "openai", "id")
    scope = {"method": "POST", "path": trace.path, "headers": []}
    assert made.tracer
    made.tracer.begin(Request(scope, answer), trace)  # type: ignore[arg-type]
    return trace


@pytest.mark.usefixtures("replica")
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way to install it."""
    exporter = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, exporter, None)
    monkeypatch.delitem(sys.modules, "serve_app.tracing.http_exporter", raising=False)
    with pytest.raises(SettingsError, match=r"trace_exporter, which is not installed: pip install"):
        new_telemetry(Settings())


@pytest.mark.usefixtures("replica")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "3"),  # below the size of a batch
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
    ],
)
def test_a_variable_that_cannot_work_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Not a thread, later, without a word."""
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="OpenTelemetry's variables can't work"):
        new_telemetry(Settings())
