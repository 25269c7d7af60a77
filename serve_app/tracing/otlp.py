"""Sends the conventions' metrics to a collector.

The SDK's instruments take 8 us for each value, and a request has six. Here all six take less than
2 us, those of many requests one after another, and a thread hands the sums to the SDK's exporter
once a minute.
"""

import os
from bisect import bisect_left
from collections import deque
from threading import Event, Lock, Thread
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
    measurements,
)

_INTERVAL_MS = 60_000
# Code that runs now and then, between other requests, takes several times as long.
_TOGETHER = 128
_CUMULATIVE = AggregationTemporality.CUMULATIVE


class MetricValues:
    """The values of one metric with the same labels, since the process began."""

    __slots__ = ("_bounds", "buckets", "count", "max", "min", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0
        self.min = float("inf")
        self.max = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        if not self._bounds:
            return
        self.buckets[bisect_left(self._bounds, value)] += 1
        if value < self.min:
            self.min = value
        if value > self.max:
            self.max = value


class OtlpMetrics:
    """Counts requests and sends the sums to a collector. Must be closed."""

    def __init__(self, exporter: MetricExporter, resource: Resource, losses: Losses) -> None:
        self._exporter = exporter
        self._resource = resource
        self._losses = losses
        self._began = time_ns()
        self._values: dict[Labels, tuple[MetricValues, ...]] = {}  # in the order of INSTRUMENTS
        self._ended: deque[RequestTrace] = deque()
        self._lock = Lock()
        self._every_s = int(os.environ.get(OTEL_METRIC_EXPORT_INTERVAL, _INTERVAL_MS)) / 1000
        self._stopped = Event()
        self._thread = Thread(target=self._send_again_and_again, daemon=True)
        self._thread.start()

    def count(self, trace: RequestTrace) -> None:
        """Keep a request until its values are added; not a failed one, whose error holds frames."""
        self._ended.append(trace)
        if trace.error or len(self._ended) >= _TOGETHER:
            self._add_all()

    def _add_all(self) -> None:
        with self._lock:
            while self._ended:
                self._add(self._ended.popleft())

    def _add(self, trace: RequestTrace) -> None:
        labels = labels_of(trace)
        if labels is None:
            return
        values = self._values.get(labels)
        if values is None:
            values = tuple(MetricValues(one.bounds) for one in INSTRUMENTS)
            self._values[labels] = values
        for metric, value in zip(values, measurements(trace), strict=True):
            if value is not None:
                metric.add(value)

    def report(self) -> None:
        """Do nothing: a thread sends the sums."""

    def close(self) -> None:
        """Send the last sums, within a bound."""
        self._stopped.set()
        self._thread.join(2.0)

    def _send_again_and_again(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._send()
        self._send()
        self._exporter.shutdown()

    def _send(self) -> None:
        self._add_all()
        metrics = list(filter(None, map(self._metric, range(len(INSTRUMENTS)))))
        if not metrics:
            return
        scope = ScopeMetrics(InstrumentationScope(genai.SCOPE), metrics, "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        if self._exporter.export(data) is not MetricExportResult.SUCCESS:
            self._losses.add(len(metrics))

    def _metric(self, index: int) -> Metric | None:
        """Return the sums of one of INSTRUMENTS; None before the first value."""
        instrument, span = INSTRUMENTS[index], (self._began, time_ns())
        some = [
            (_attributes(instrument, labels), values[index])
            for labels, values in self._values.copy().items()
            if values[index].count
        ]
        if not some:
            return None
        data = _histogram(some, span, instrument.bounds) if instrument.bounds else _sum(some, span)
        return Metric(instrument.name, instrument.description, instrument.unit, data)


def _histogram(
    some: list[tuple[dict[str, str], MetricValues]],
    span: tuple[int, int],
    bounds: tuple[float, ...],
) -> Histogram:
    points = [
        HistogramDataPoint(
            *(attributes, *span, one.count, one.total),
            *(tuple(one.buckets), bounds, one.min, one.max),
        )
        for attributes, one in some
    ]
    return Histogram(points, _CUMULATIVE)


def _sum(some: list[tuple[dict[str, str], MetricValues]], span: tuple[int, int]) -> Sum:
    points = [NumberDataPoint(attributes, *span, int(one.total)) for attributes, one in some]
    return Sum(points, _CUMULATIVE, is_monotonic=True)


def _attributes(instrument: Instrument, labels: Labels) -> dict[str, str]:
    named = {name: value for name, value in zip(LABELS, labels, strict=True) if value}
    return named | instrument.attributes
