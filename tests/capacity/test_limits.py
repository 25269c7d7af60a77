"""A limit holds on a public trace: see tests/support/limit_trace.py for what is assumed."""

import pytest

from tests.support import traces
from tests.support.limit_trace import Result, results


@pytest.fixture(scope="module")
def by_case() -> dict[str, Result]:
    return dict(results(traces.AZURE))


@traces.needed
def test_the_mean_overrun_is_below_two_percent(by_case: dict[str, Result]) -> None:
    """With a limit of 20 mean requests a minute, of which far more arrive."""
    for result in by_case.values():
        assert result.mean <= 0.02
        assert result.served > 20
        assert result.refused > result.served


@traces.needed
def test_a_limit_is_used_to_its_end(by_case: dict[str, Result]) -> None:
    """Reservations are not so large that much of it is never given out."""
    for result in by_case.values():
        assert result.tokens > 0.95 * result.limit * result.seconds / 60


@traces.needed
def test_reserving_the_maximum_never_overruns_a_limit_of_output(
    by_case: dict[str, Result],
) -> None:
    """Where only tokens of answers weigh, no estimate is left."""
    assert max(by_case["max, output tokens"].overruns) == 0
