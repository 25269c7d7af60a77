"""Sums go to Ray as the series of a Prometheus counter or histogram."""

from collections.abc import Callable
from typing import Any

import pytest

from serve_app.ray_serve import summed_metrics
from serve_app.ray_serve.summed_metrics import SummedCounter, SummedHistogram

Values = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> Values:
    """By metric and the values of its labels; a gauge keeps the last one, a counter the sum."""
    values: Values = {}

    def fake(combine: Callable[[float, float], float]) -> Any:
        class Fake:
            def __init__(self, name: str, description: str, labels: tuple[str, ...]) -> None:
                self.series = values.setdefault(name, {})
                self.labels = labels

            def inc(self, value: float, labels: dict[str, str]) -> None:
                assert tuple(labels) == self.labels
                key = tuple(labels.values())
                self.series[key] = combine(self.series.get(key, 0), value)

            set = inc

        return Fake

    monkeypatch.setattr(summed_metrics.metrics, "Gauge", fake(lambda old, new: new))
    monkeypatch.setattr(summed_metrics.metrics, "Counter", fake(lambda old, new: old + new))
    return values


def test_buckets_are_cumulative_and_include_their_bound(values: Values) -> None:
    """The last one is +Inf; the sum is exact."""
    histogram = SummedHistogram("h", "", [0.1, 1, 10], ("model",))
    for value in (0.05, 0.1, 0.5, 99.25):
        histogram.observe(value, "m")
    histogram.report()
    assert values == {
        "h_bucket": {("m", "0.1"): 2, ("m", "1.0"): 3, ("m", "10.0"): 3, ("m", "+Inf"): 4},
        "h_sum": {("m",): 99.9},
        "h_count": {("m",): 4},
    }


def test_counts_go_on_after_a_report(values: Values) -> None:
    """Each set of labels is a series of its own, which is reported again when it has changed."""
    histogram = SummedHistogram("h", "", [1], ("model",))
    histogram.observe(2, "m")
    histogram.observe(2, "n")
    histogram.report()
    values["h_count"].clear()
    histogram.observe(0.5, "m")
    histogram.report()
    assert values["h_count"] == {("m",): 2}
    assert values["h_bucket"] == {
        ("m", "1.0"): 1,
        ("m", "+Inf"): 2,
        ("n", "1.0"): 0,
        ("n", "+Inf"): 1,
    }


def test_a_counter_gets_each_sum_once(values: Values) -> None:
    """A sum of 0, which Ray refuses, is left out."""
    counter = SummedCounter("c", "", ("model",))
    for _ in range(2):
        counter.add(2, "m")
        counter.add(3, "m")
        counter.add(0, "n")
        counter.report()
    counter.report()
    assert values == {"c": {("m",): 10}}
