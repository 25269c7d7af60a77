"""The conventions' metrics on their way to a collector.

The SDK's instruments take 5 us for each value, eight of them for each request. Here a value costs
a bisection, and a thread hands the sums to the SDK's exporter once a minute.
"""

import os
from bisect import bisect_left
from collections import defaultdict
from threading import Event, Thread
from time import time_ns

from opentelemetry.sdk.environment_variables import OTEL_METRIC_EXPORT_INTERVAL
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from serve_app.api.request_trace import RequestTrace
from serve_app.tracing import genai
from serve_app.tracing.exporters import Losses
from serve_app.tracing.measures import (
    INSTRUMENTS,
    LABELS,
    Instrument,
    Labels,
    labels_of,
    measure,
)

_INTERVAL_MS = 60_000
_CUMULATIVE = AggregationTemporality.CUMULATIVE


class Values:
    """The values of one metric with the same labels, since the process began."""

    __slots__ = ("buckets", "count", "max", "min", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0
        self.min = float("inf")
        self.max = 0.0

    def add(self, value: float, bounds: tuple[float, ...]) -> None:
        self.buckets[bisect_left(bounds, value)] += 1
        self.count += 1
        self.total += value
        self.min = min(self.min, value)
        self.max = max(self.max, value)


class OtlpMetrics:
    """Counts requests, and sends the sums to a collector. `close` it."""

    def __init__(self, exporter: MetricExporter, resource: Resource, losses: Losses) -> None:
        self._exporter = exporter
        self._resource = resource
        self._losses = losses
        self._began = time_ns()
        self._values: dict[Instrument, defaultdict[Labels, Values]] = {
            instrument: defaultdict(lambda bounds=instrument.bounds: Values(bounds))  # type: ignore[misc]
            for instrument in INSTRUMENTS
        }
        self._stopped = Event()
        self._thread = Thread(target=self._send_again_and_again, daemon=True)
        self._thread.start()

    def count(self, trace: RequestTrace) -> None:
        labels = labels_of(trace)
        if labels:
            for instrument, value in measure(trace):
                self._values[instrument][labels].add(value, instrument.bounds)

    def close(self) -> None:
        """Send the last sums, within a bound."""
        self._stopped.set()
        self._thread.join(2.0)

    def _send_again_and_again(self) -> None:
        seconds = int(os.environ.get(OTEL_METRIC_EXPORT_INTERVAL, _INTERVAL_MS)) / 1000
        while not self._stopped.wait(seconds):
            self._send()
        self._send()
        self._exporter.shutdown()

    def _send(self) -> None:
        metrics = [
            self._metric(one, dict(values)) for one, values in self._values.items() if values
        ]
        if not metrics:
            return
        scope = ScopeMetrics(InstrumentationScope(genai.SCOPE), metrics, "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        if self._exporter.export(data) is not MetricExportResult.SUCCESS:
            self._losses.add(len(metrics))

    def _metric(self, instrument: Instrument, values: dict[Labels, Values]) -> Metric:
        now = time_ns()
        data = (
            self._histogram(instrument, values, now)
            if instrument.bounds
            else self._sum(instrument, values, now)
        )
        return Metric(instrument.name, instrument.description, instrument.unit, data)

    def _histogram(
        self, instrument: Instrument, values: dict[Labels, Values], now: int
    ) -> Histogram:
        points = [
            HistogramDataPoint(
                *(_attributes(instrument, labels), self._began, now, one.count, one.total),
                *(tuple(one.buckets), instrument.bounds, one.min, one.max),
            )
            for labels, one in values.items()
        ]
        return Histogram(points, _CUMULATIVE)

    def _sum(self, instrument: Instrument, values: dict[Labels, Values], now: int) -> Sum:
        points = [
            NumberDataPoint(_attributes(instrument, labels), self._began, now, int(one.total))
            for labels, one in values.items()
        ]
        return Sum(points, _CUMULATIVE, is_monotonic=True)


def _attributes(instrument: Instrument, labels: Labels) -> dict[str, str]:
    named = {name: value for name, value in zip(LABELS, labels, strict=True) if value}
    return named | instrument.attributes
