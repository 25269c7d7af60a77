"""Replicas above the forecast, learned from waits that were too long."""

import pytest

from serve_app.scaling.reserve import Reserve


def seen(reserve: Reserve, seconds: int, late: bool, begin: int = 1000) -> Reserve:
    """Return the reserve after so many seconds, each with one second of work."""
    for second in range(seconds):
        reserve = reserve.after(begin + second, 1.0, late, 0.005, 30.0)
    return reserve


def test_work_that_waits_too_long_raises_it_once_in_a_start() -> None:
    """A replica more is on its way, and helps only then."""
    assert seen(Reserve(), 1, late=True).level == 0.15
    assert seen(Reserve(), 90, late=True).level == 0.15
    assert seen(Reserve(), 92, late=True).level == 0.3


def test_what_the_quantile_allows_raises_nothing() -> None:
    """One late second in 200 or more."""
    reserve = seen(Reserve(), 300, late=False)
    assert seen(reserve, 1, late=True, begin=2000).level == 0
    assert seen(reserve, 2, late=True, begin=2000).level > 0


def test_it_fades_and_has_a_bound() -> None:
    """As errors of forecasts do."""
    reserve = Reserve()
    for number in range(100):
        reserve = seen(reserve, 1, late=True, begin=1000 * number)
    assert reserve.level == 2.0
    assert reserve.faded(0.5).level == 1.0
    assert reserve.above(3.5, highest=5.0) == 3.5 + 2.0 * 2


def test_a_margin_above_the_highest_load_is_no_second_one() -> None:
    """Of the two, the larger one counts."""
    reserve = seen(Reserve(), 1, late=True)
    assert reserve.above(9.5, highest=8.5) == 9.5
    assert reserve.above(8.6, highest=8.5) == 8.5 + 0.15 * 3


def test_a_clock_that_goes_back_does_not_hold_it_back() -> None:
    """The next late second counts."""
    reserve = seen(Reserve(), 1, late=True, begin=1_000_000)
    assert seen(reserve, 1, late=True, begin=500).level == pytest.approx(0.3)
