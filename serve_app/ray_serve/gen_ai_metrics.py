"""OpenTelemetry's metrics for generative AI through Ray, beside the service's own."""

from collections.abc import Callable

from serve_app.api.request_trace import RequestTrace
from serve_app.ray_serve.summed_metrics import SummedCounter, SummedHistogram, SummedMetric
from serve_app.tracing.measures import (
    INSTRUMENTS,
    LABELS,
    Instrument,
    labels_of,
    measurements,
)

_NAMES = tuple(name.replace(".", "_") for name in LABELS)


class GenAiMetrics:
    """Counts requests in the conventions' names, with underscores and units."""

    def __init__(self) -> None:
        # Of every metric: how to add a value, and its constant labels.
        self._metrics: list[SummedMetric] = []
        self._adds: list[tuple[Callable[..., None], tuple[str, ...]]] = []
        for one in INSTRUMENTS:
            if one.bounds:
                histogram = _histogram(one)
                self._metrics.append(histogram)
                self._adds.append((histogram.observe, ()))
            else:
                counter = _counter(one)
                self._metrics.append(counter)
                self._adds.append((counter.add, tuple(one.attributes.values())))

    def count(self, trace: RequestTrace) -> None:
        labels = labels_of(trace)
        if labels is None:
            return
        for (add, constant), value in zip(self._adds, measurements(trace), strict=True):
            if value is not None:
                add(value, *labels, *constant)

    def report(self) -> None:
        """Hand the sums to Ray."""
        for metric in self._metrics:
            metric.report()


def _histogram(instrument: Instrument) -> SummedHistogram:
    return SummedHistogram(
        instrument.prometheus_name, instrument.description, instrument.bounds, _NAMES
    )


def _counter(instrument: Instrument) -> SummedCounter:
    names = (*_NAMES, *(name.replace(".", "_") for name in instrument.attributes))
    return SummedCounter(instrument.prometheus_name, instrument.description, names)
