"""Counters of the last periods of time, in fixed memory and without a task."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

PERIOD_S = 10


class Ring:
    """`width` counters for each of the last `periods` of 10 s, on a clock that is passed in.

    All processes use Unix time, so that their periods can be added.
    """

    __slots__ = ("_index", "counts", "periods", "width")

    def __init__(self, width: int, periods: int) -> None:
        self.width = width
        self.periods = periods
        self.counts = array("I", bytes(4 * width * periods))
        self._index = 0  # of the newest period, since 1970

    def row(self, now: float) -> int:
        """Return the index in `counts` of the period of `now`, in seconds since 1970.

        A clock that is set back counts into the newest period.
        """
        index = int(now) // PERIOD_S
        if index > self._index:
            self._clear(index)
        return self._index % self.periods * self.width

    def _clear(self, index: int) -> None:
        """Empty the periods that have begun since the newest one, and make `index` the newest."""
        for begun in range(max(self._index + 1, index - self.periods + 1), index + 1):
            at = begun % self.periods * self.width
            self.counts[at : at + self.width] = array("I", bytes(4 * self.width))
        self._index = index

    def rows(self, now: float) -> "Rows":
        """Return the counters of every period, the one of `now` last."""
        self.row(now)
        width, counts = self.width, self.counts
        first = self._index - self.periods + 1
        starts = [i % self.periods * width for i in range(first, self._index + 1)]
        return Rows(self._index, tuple(counts[at : at + width] for at in starts))


@dataclass(frozen=True, slots=True)
class Rows:
    """The counters of a ring, the oldest period first. `index`: of the newest, since 1970."""

    index: int
    rows: tuple["array[int]", ...]

    def until(self, now: float) -> tuple["array[int]", ...]:
        """Return as many rows, the last one for the period of `now`."""
        later = min(max(int(now) // PERIOD_S - self.index, 0), len(self.rows))
        empty = array("I", bytes(4 * len(self.rows[0])))
        return (*self.rows[later:], *[empty] * later)


def summed(rings: Iterable[tuple["array[int]", ...]]) -> list[list[int]]:
    """Return the sums, period by period, of the rows of rings with the same shape."""
    return [list(map(sum, zip(*rows, strict=True))) for rows in zip(*rings, strict=True)]


def seconds_covered(now: float, periods: int) -> float:
    """Return the seconds of the last `periods`, with the elapsed part of the newest."""
    return (periods - 1) * PERIOD_S + max(now % PERIOD_S, 1.0)
