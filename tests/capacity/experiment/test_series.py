"""Records over time."""

import math

from serve_app.capacity.experiment.series import Bins, series
from serve_app.capacity.results.request_records import ClientOutcome, Record


def test_bins_are_wide_enough_to_be_read() -> None:
    """A busy minute has one a second, a quiet one fewer, a day far fewer than its seconds."""
    assert Bins.over(0, 60, 600).width == 1
    assert Bins.over(0, 60, 60).width == 2
    assert Bins.over(0, 60, 0).count == 1
    assert Bins.over(0, 86_400, 10**6).count <= 120


def test_arrivals_count_where_intended_and_answers_where_they_ended() -> None:
    """Load that was offered early and answered late is seen at both times."""
    records = [Record(0.5, ClientOutcome.OK, 0.5, 2.0, 2.5), Record(0.6, ClientOutcome.DROPPED)]
    values = series(records, Bins(0, 1, 3))
    assert values.offered == [2, 0, 0]
    assert values.completed == [0, 0, 1]


def test_percentiles_pool_the_requests_of_a_bin() -> None:
    """By their intended start; a bin without answers has none."""
    records = [Record(0.1, ClientOutcome.OK, 0.1, 0.1 + ttft, 9.0) for ttft in (1.0, 2.0, 3.0)]
    values = series(records, Bins(0, 1, 2))
    assert values.ttft["p50"][0] == 2.0
    assert math.isnan(values.ttft["p50"][1])


def test_failures_are_counted_by_outcome() -> None:
    """What was cut by the end of the run is none."""
    outcomes = (ClientOutcome.REJECTED, ClientOutcome.TRUNCATED, ClientOutcome.CANCELLED)
    values = series([Record(1.5, outcome) for outcome in outcomes], Bins(0, 1, 3))
    assert values.failures == {"rejected": [0, 1, 0], "truncated": [0, 1, 0]}
