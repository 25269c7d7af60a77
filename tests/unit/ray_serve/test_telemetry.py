"""The traces of a replica: decided at its start, by its settings and environment."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.errors import SettingsError
from serve_app.ray_serve import telemetry
from serve_app.ray_serve.telemetry import new_telemetry
from serve_app.settings import Settings
from serve_app.tracing.replica import TracedCalls

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
