"""Metrics in the names of OpenTelemetry's conventions, over OTLP and through Ray."""

import weakref
from typing import Any

import pytest

from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import Usage
from serve_app.errors import EngineLost
from serve_app.ray_serve import summed_metrics
from serve_app.ray_serve.gen_ai_metrics import GenAiMetrics
from serve_app.tracing.measures import INSTRUMENTS, measurements
from serve_app.tracing.switch import Signals
from tests.support.fleets import trace
from tests.support.otlp import Collector, attributes, sender

LABELS = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "ollama",
    "gen_ai.request.model": "smollm2:135m",
    "gen_ai.response.model": "smollm2:135m",
}


def streamed(**noted: Any) -> RequestTrace:
    """A stream of 11 tokens: the first after 0.2 s, the last after 0.7 s, its end after 1 s."""
    made = trace(stream=True, usage=Usage(30, 11, 20), **noted)
    made.first_chunk_at, made.last_chunk_at = made.started + 0.2, made.started + 0.7
    return made


def measured(one: RequestTrace) -> dict[str, float]:
    added = zip(INSTRUMENTS, measurements(one), strict=True)
    return {metric.name: pytest.approx(value) for metric, value in added if value is not None}


def test_a_stream_adds_to_every_metric() -> None:
    """Its duration, its first token, the time of each token after it, and tokens."""
    assert measured(streamed()) == {
        "gen_ai.server.request.duration": 1.0,
        "gen_ai.server.time_to_first_token": 0.2,
        "gen_ai.server.time_per_output_token": 0.05,
        "gen_ai.client.inference.usage.input_tokens": 30,
        "gen_ai.client.inference.usage.cache_read.input_tokens": 20,
        "gen_ai.client.inference.usage.output_tokens": 11,
    }


def test_a_failure_adds_its_duration_and_what_was_counted() -> None:
    """As the conventions have it, times of tokens are those of successes alone."""
    failed = streamed()
    failed.fail(EngineLost("gone"))
    names = set(measured(failed))
    assert "gen_ai.server.time_to_first_token" not in names
    assert {"gen_ai.server.request.duration", "gen_ai.client.inference.usage.output_tokens"} < names
    failed.note_estimate(Usage(30, 2))
    assert set(measured(failed)) == {"gen_ai.server.request.duration"}


def test_requests_are_kept_for_a_while_but_no_error(received: Collector) -> None:
    """Its frames may hold a large request."""
    send = sender(received.http, signals=Signals(False, True, False))
    assert send.metrics
    broken = trace()
    broken.fail(EngineLost("gone"))
    error = weakref.ref(broken.error)
    send.metrics.count(broken)
    del broken
    assert error() is None
    for _ in range(1000):
        send.metrics.count(trace())
    send.close()
    points = received.metric("gen_ai.server.request.duration").histogram.data_points
    assert [point.count for point in points] == [1, 1000]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_sums_go_to_a_collector(received: Collector, protocol: str) -> None:
    """Histograms with the conventions' bounds, counters of tokens, errors apart."""
    to = received.grpc if protocol == "grpc" else received.http
    send = sender(to, signals=Signals(False, True, False), OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert send.metrics
    broken = trace()
    broken.fail(EngineLost("gone"))
    for one in (streamed(), streamed(), broken, trace(model="")):
        send.metrics.count(one)
    send.close()
    points = received.metric("gen_ai.server.request.duration").histogram.data_points
    assert [attributes(point.attributes) for point in points] == [
        LABELS,
        {**LABELS, "error.type": "EngineLost"},
    ]
    assert (points[0].count, points[0].sum, points[0].max) == (2, pytest.approx(2), 1)
    assert list(points[0].explicit_bounds)[:2] == [0.01, 0.02]
    assert sum(points[0].bucket_counts) == 2
    tokens = received.metric("gen_ai.client.inference.usage.output_tokens")
    assert (tokens.unit, tokens.sum.is_monotonic) == ("{token}", True)
    (point,) = tokens.sum.data_points
    assert point.as_int == 22
    assert attributes(point.attributes) == {**LABELS, "gen_ai.token.modality": "unknown"}


class Counted:
    """A metric of Ray's that keeps what it is told."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name
        self.calls: list[tuple[float, dict[str, str]]] = []

    def inc(self, number: float, labels: dict[str, str]) -> None:
        self.calls.append((number, labels))

    set = inc


def test_ray_exports_them_with_underscores_and_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prefix `ray_` comes before these names."""
    made: dict[str, Counted] = {}

    def metric(name: str, *_: Any) -> Counted:
        return made.setdefault(name, Counted(name))

    monkeypatch.setattr(summed_metrics.metrics, "Gauge", metric)
    monkeypatch.setattr(summed_metrics.metrics, "Counter", metric)
    counted = GenAiMetrics()
    counted.count(streamed())
    counted.report()
    histograms = {
        "gen_ai_server_request_duration_seconds",
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai_server_time_per_output_token_seconds",
    }
    counters = {
        "gen_ai_client_inference_usage_input_tokens_total",
        "gen_ai_client_inference_usage_cache_read_input_tokens_total",
        "gen_ai_client_inference_usage_output_tokens_total",
    }
    assert len(histograms | counters) == len(INSTRUMENTS)
    series = ("bucket", "sum", "count")
    assert set(made) == counters | {f"{name}_{part}" for name in histograms for part in series}
    labels = {name.replace(".", "_"): value for name, value in LABELS.items()} | {"error_type": ""}
    assert made["gen_ai_server_request_duration_seconds_sum"].calls == [(1.0, labels)]
    (tokens,) = made["gen_ai_client_inference_usage_output_tokens_total"].calls
    assert tokens == (11, labels | {"gen_ai_token_modality": "unknown"})
