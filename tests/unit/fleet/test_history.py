"""Rates, outcomes and times to first token of the last 15 minutes."""

import pytest

from serve_app.api.outcome import Outcome
from serve_app.api.relay import Usage
from serve_app.fleet import history
from tests.support.fleets import NOW, trace


def counted(*traces: object, at: float = NOW) -> history.Rows:
    ring = history.new_ring()
    for each in traces:
        history.count(ring, each, at)
    return ring.rows(NOW)


def with_ttft(seconds: float) -> object:
    made = trace()
    made.first_chunk_at = made.started + seconds
    return made


def test_a_request_is_counted_by_its_outcome() -> None:
    """In the period in which it ended."""
    series = history.series([counted(trace(), trace(outcome=Outcome.TIMEOUT), at=NOW - 20)], NOW)
    assert series["outcomes"]["ok"][-4:] == [0, 1, 0, 0]
    assert series["outcomes"]["timeout"][-4:] == [0, 1, 0, 0]
    assert series["requests_per_s"][-4:] == [0.0, 0.2, 0.0, 0.0]


def test_tokens_and_cached_share() -> None:
    """Only prompts whose engine tells of its cache count for the share."""
    rows = counted(trace(usage=Usage(100, 31, 40)), trace(usage=Usage(500, 8, None)))
    recent = history.recent([rows], NOW)
    assert recent["cached_share"] == 0.4
    assert recent["tokens_per_s"] == round(39 / 39, 1)


def test_two_processes_are_one_history() -> None:
    """Percentiles are of all requests together, not means of percentiles."""
    fast, slow = counted(*[with_ttft(0.1)] * 9), counted(with_ttft(10.0))
    series = history.series([fast, slow], NOW)
    assert series["ttft_p50_s"][-1] < 0.12
    assert history.recent([fast, slow, slow], NOW)["ttft_p95_s"] > 5


@pytest.mark.parametrize("ttft", [0.004, 0.05, 0.3, 2.0, 45.0, 280.0])
def test_quantiles_are_near_the_times(ttft: float) -> None:
    """Within the width of a bin, half of the time."""
    p50 = history.series([counted(*[with_ttft(ttft)] * 5)], NOW)["ttft_p50_s"][-1]
    assert p50 == pytest.approx(ttft, rel=0.5)


def test_nothing_is_known_without_requests() -> None:
    """A time is None, a rate is zero."""
    series = history.series([], NOW)
    assert set(series["ttft_p50_s"]) == {None}
    assert set(series["requests_per_s"]) == {0.0}
    assert len(series["requests_per_s"]) == 90


def test_the_newest_rate_waits_for_half_a_period() -> None:
    """Else every chart would end in a fall."""
    rows = counted(*[trace()] * 10, at=NOW - 9)
    assert history.series([rows], NOW - 8)["requests_per_s"][-1] is None
    assert history.series([rows], NOW)["requests_per_s"][-1] == round(10 / 9, 2)
