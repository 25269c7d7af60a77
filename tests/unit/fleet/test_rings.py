"""Counters of the last periods, on a clock that is passed in."""

import sys

from serve_app.fleet.rings import Ring, split, summed


def counted(*times: float, periods: int = 3) -> Ring:
    ring = Ring(1, periods)
    for at in times:
        ring.counts[ring.row(at)] += 1
    return ring


def values(ring: Ring, now: float) -> list[int]:
    return list(ring.rows(now).counts)


def test_periods_are_ten_seconds() -> None:
    """What happens in the same ten seconds is counted together."""
    assert values(counted(100, 109.9, 110), 119) == [0, 2, 1]


def test_old_periods_are_forgotten() -> None:
    """A period that is reused begins at zero, however long nothing has happened."""
    ring = counted(100, 110, 120)
    assert values(ring, 125) == [1, 1, 1]
    assert values(ring, 135) == [1, 1, 0]
    assert values(ring, 10_000) == [0, 0, 0]


def test_a_clock_that_is_set_back_counts_now() -> None:
    """Nothing is lost, and no old period changes."""
    assert values(counted(120, 95), 125) == [0, 0, 2]


def test_rows_move_to_the_time_of_the_reader() -> None:
    """A report that is two periods old does not count as new."""
    rows = counted(100, 110).rows(115)
    assert list(rows.until(135)) == [1, 0, 0]
    assert list(rows.until(99)) == [0, 1, 1]


def test_rings_add_up_period_by_period() -> None:
    """The sum of two processes, of which one has been silent for a period."""
    first, second = counted(100, 110, 110), counted(110)
    counts = summed([first.rows(112).until(125), second.rows(121).until(125)])
    assert split(counts, 1) == [[1], [3], [0]]


def test_a_ring_takes_a_fixed_space() -> None:
    """Whatever is counted."""
    ring = Ring(40, 90)
    before = sys.getsizeof(ring.counts)
    for at in range(0, 100_000, 7):
        ring.counts[ring.row(at)] += 1
    assert sys.getsizeof(ring.counts) == before < 32_768
