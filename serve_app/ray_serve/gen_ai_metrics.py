"""OpenTelemetry's metrics for generative AI through Ray, beside the service's own."""

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
        self._histograms = {one: _histogram(one) for one in INSTRUMENTS if one.bounds}
        self._counters = {one: _counter(one) for one in INSTRUMENTS if not one.bounds}

    def count(self, trace: RequestTrace) -> None:
        labels = labels_of(trace)
        if labels is None:
            return
        for instrument, value in measurements(trace):
            if instrument.bounds:
                self._histograms[instrument].observe(value, *labels)
            else:
                self._counters[instrument].add(value, *labels, *instrument.attributes.values())

    def report(self) -> None:
        """Hand the sums to Ray."""
        every: tuple[SummedMetric, ...] = (*self._histograms.values(), *self._counters.values())
        for metric in every:
            metric.report()


def _histogram(instrument: Instrument) -> SummedHistogram:
    return SummedHistogram(
        instrument.prometheus_name, instrument.description, instrument.bounds, _NAMES
    )


def _counter(instrument: Instrument) -> SummedCounter:
    names = (*_NAMES, *(name.replace(".", "_") for name in instrument.attributes))
    return SummedCounter(instrument.prometheus_name, instrument.description, names)
