"""OpenTelemetry's metrics for generative AI through Ray, beside the service's own."""

from typing import Any

from ray.serve import metrics

from serve_app.api.request_trace import RequestTrace
from serve_app.tracing.measures import (
    INSTRUMENTS,
    LABELS,
    Instrument,
    labels_of,
    measurements,
)

_NAMES: Any = tuple(name.replace(".", "_") for name in LABELS)  # Ray annotates a tuple of one


class GenAiMetrics:
    """Counts requests in the conventions' names, with underscores and units."""

    def __init__(self) -> None:
        self._histograms = {one: _histogram(one) for one in INSTRUMENTS if one.bounds}
        self._counters = {one: _counter(one) for one in INSTRUMENTS if not one.bounds}

    def count(self, trace: RequestTrace) -> None:
        values = labels_of(trace)
        if values is None:
            return
        labels = dict(zip(_NAMES, values, strict=True))
        for instrument, value in measurements(trace):
            if instrument.bounds:
                self._histograms[instrument].observe(value, labels)
            else:
                self._counters[instrument].inc(value, labels | _underscored(instrument.attributes))


def _histogram(instrument: Instrument) -> metrics.Histogram:
    return metrics.Histogram(
        instrument.prometheus_name, instrument.description, list(instrument.bounds), _NAMES
    )


def _counter(instrument: Instrument) -> metrics.Counter:
    names: Any = (*_NAMES, *_underscored(instrument.attributes))
    return metrics.Counter(instrument.prometheus_name, instrument.description, names)


def _underscored(attributes: dict[str, str]) -> dict[str, str]:
    return {name.replace(".", "_"): value for name, value in attributes.items()}
