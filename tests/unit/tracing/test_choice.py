"""Which new traces are sampled where the sampler is a ratio."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    DEFAULT_ON,
    ParentBased,
    ParentBasedTraceIdRatio,
    TraceIdRatioBased,
)

from serve_app.tracing.choice import NewTraces, new_traces


def chosen(share: float, number: int, seed: int = 1) -> list[int | None]:
    bound = TraceIdRatioBased.get_bound_for_rate(share)
    traces = NewTraces(bound, Random(seed))
    return [traces.next_id() for _ in range(number)]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_the_share_is_kept(share: float) -> None:
    """Within five deviations of independent choices."""
    number = 100_000
    count = sum(id_ is not None for id_ in chosen(share, number))
    assert count == pytest.approx(number * share, abs=5 * (number * share * (1 - share)) ** 0.5)


def test_each_request_is_chosen_independently() -> None:
    """The pauses between two traces have the geometric distribution."""
    is_chosen = [id_ is not None for id_ in chosen(0.25, 200_000)]
    places = [at for at, chosen in enumerate(is_chosen) if chosen]
    pauses = Counter(b - a for a, b in pairwise(places))
    for length in range(1, 8):
        expected = 0.25 * 0.75 ** (length - 1)
        assert pauses[length] / pauses.total() == pytest.approx(expected, abs=0.01)


def test_none_and_all() -> None:
    """The bounds of the ratio, and a share that is almost nothing."""
    assert chosen(0.0, 1000) == [None] * 1000
    assert None not in chosen(1.0, 1000)
    assert chosen(1e-19, 1000) == [None] * 1000


def test_ids_are_valid_and_sampled_everywhere() -> None:
    """Each is new, has 128 bits, and is below the bound of the SDK's sampler."""
    ids = [id_ for id_ in chosen(0.3, 4000) if id_ is not None]
    assert len(set(ids)) == len(ids)
    assert {0} != {id_ >> 120 for id_ in ids}
    sampler = TraceIdRatioBased(0.3)
    assert all(0 < id_ < 2**128 for id_ in ids)
    assert all(sampler.should_sample(None, id_, "chat").decision.is_sampled() for id_ in ids)


def test_only_a_ratio_is_chosen_here() -> None:
    """Other samplers are asked for each request."""
    assert new_traces(ParentBasedTraceIdRatio(0.1))
    assert new_traces(TraceIdRatioBased(0.1))
    assert not new_traces(ALWAYS_ON)
    assert not new_traces(DEFAULT_ON)
    assert not new_traces(ParentBased(ALWAYS_ON))
