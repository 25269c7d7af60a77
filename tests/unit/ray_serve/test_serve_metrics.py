"""Requests of the short way are in Serve's metrics within a second."""

from collections.abc import Callable
from typing import Any

import pytest

from serve_app.ray_serve import serve_metrics, summed_metrics
from serve_app.ray_serve.serve_metrics import ServeMetrics


class Metrics:
    """Serve's own of a replica's requests."""

    route = "/"

    def __init__(self) -> None:
        self.processed: list[tuple[int, str]] = []
        self.answered: list[tuple[int, str, int]] = []
        self.latencies: list[tuple[float, float]] = []

    def count_processed(self, number: int, exception: str) -> None:
        self.processed.append((number, exception))

    def count_answered(self, number: int, method: str, status: int) -> None:
        self.answered.append((number, method, status))

    def note_latencies(self, sum_ms: float, max_ms: float) -> None:
        self.latencies.append((sum_ms, max_ms))


class Loop:
    """An event loop with the timers that were set in it."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, call: Callable[[], None], context: Any) -> None:
        assert not list(context)  # no caller's
        self.timers.append(call)


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    """Values of gauges by name and labels."""
    series: dict[tuple[str, ...], float] = {}

    class Gauge:
        def __init__(self, name: str, description: str, labels: tuple[str, ...]) -> None:
            self.name = name

        def set(self, value: float, labels: dict[str, str]) -> None:
            series[(self.name, *labels.values())] = value

    monkeypatch.setattr(summed_metrics.metrics, "Gauge", Gauge)
    return series


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(serve_metrics.asyncio, "get_running_loop", lambda: loop)
    return loop


def test_requests_are_added_together(series: dict[tuple[str, ...], float], loop: Loop) -> None:
    """By method, status and exception; one that never began has no latency over HTTP."""
    own = Metrics()
    metrics = ServeMetrics(own)  # type: ignore[arg-type]
    for seconds in (0.001, 0.003):
        metrics.record("POST", 200, seconds, "")
    metrics.record("POST", 0, 0.002, "KeyError")
    (report,) = loop.timers
    assert own.processed == []
    report()
    assert own.processed == [(2, ""), (1, "KeyError")]
    assert own.answered == [(2, "POST", 200)]
    assert own.latencies == [(4.0, 3.0), (2.0, 2.0)]
    assert series["serve_deployment_processing_latency_ms_count", "/"] == 3
    assert series["serve_deployment_processing_latency_ms_sum", "/"] == 6.0
    answered = ("POST", "/", "200")
    assert series[("serve_http_request_latency_ms_count", *answered)] == 2
    assert series[("serve_http_request_latency_ms_bucket", *answered, "1.0")] == 1


def test_each_report_has_the_requests_since_the_last(
    series: dict[tuple[str, ...], float], loop: Loop
) -> None:
    """A timer is set by the first request, and none where no request comes."""
    own = Metrics()
    metrics = ServeMetrics(own)  # type: ignore[arg-type]
    for number in (1, 2):
        metrics.record("GET", 200, 0.001, "")
        assert len(loop.timers) == number
        loop.timers[-1]()
    assert own.processed == [(1, ""), (1, "")]
    assert len(loop.timers) == 2
