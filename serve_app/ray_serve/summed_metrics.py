"""Counters and histograms that are summed in the process, and handed to Ray from time to time.

Telling Ray of one observation costs more than relaying a token.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from ray.serve import metrics

# Between reports: Ray exports each 10 s by default, and not more often than once a second.
SUMS_S = 1.0

LabelValues = tuple[str, ...]


class SummedCounter:
    """Sums a counter by the values of its labels."""

    def __init__(self, name: str, description: str, labels: tuple[str, ...] = ()) -> None:
        keys: Any = labels  # Ray annotates a tuple of one
        self._counter = metrics.Counter(name, description, keys)
        self._labels = labels
        self._sums: defaultdict[LabelValues, float] = defaultdict(int)

    def add(self, number: float, *values: str) -> None:
        """Add to the sum of these values of the labels, which are in the labels' order."""
        self._sums[values] += number

    def report(self) -> None:
        """Hand the sums to Ray."""
        sums, self._sums = self._sums, defaultdict(int)
        for values, number in sums.items():
            if number:  # Ray takes no 0
                self._counter.inc(number, dict(zip(self._labels, values, strict=True)))


class _Series:
    """The observations of one set of labels. `counts`: by bucket; the last one has no bound."""

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum = 0.0


class SummedHistogram:
    """Counts observations by bucket, in gauges with the names of a Prometheus histogram's series.

    Ray's own histogram costs its agent 10 us for each observation, which it records again at the
    middle of its bucket, so that the sum is an estimate. Here the sum is exact, and observations
    cost the agent nothing. `bounds`: of the buckets, included, ascending.
    """

    def __init__(
        self, name: str, description: str, bounds: Sequence[float], labels: tuple[str, ...] = ()
    ) -> None:
        keys: Any = labels  # Ray annotates a tuple of one
        self._buckets = metrics.Gauge(f"{name}_bucket", description, (*keys, "le"))
        self._sum = metrics.Gauge(f"{name}_sum", description, keys)
        self._count = metrics.Gauge(f"{name}_count", description, keys)
        self._labels = labels
        self._bounds = tuple(bounds)
        self._bound_labels = (*(str(float(bound)) for bound in bounds), "+Inf")
        self._series: dict[LabelValues, _Series] = {}
        self._changed: set[LabelValues] = set()

    def observe(self, value: float, *values: str) -> None:
        """Count a value for these values of the labels, which are in the labels' order."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = _Series(len(self._bound_labels))
        series.counts[bisect_left(self._bounds, value)] += 1
        series.sum += value
        self._changed.add(values)

    def report(self) -> None:
        """Hand Ray the series that have changed."""
        changed, self._changed = self._changed, set()
        for values in changed:
            series, labels = self._series[values], dict(zip(self._labels, values, strict=True))
            totals = tuple(accumulate(series.counts))
            for bound, total in zip(self._bound_labels, totals, strict=True):
                self._buckets.set(total, {**labels, "le": bound})
            self._sum.set(series.sum, dict(labels))
            self._count.set(totals[-1], dict(labels))


SummedMetric = SummedCounter | SummedHistogram
