"""Counters of the last periods of time, in fixed memory and without a task."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

PERIOD_S = 10


class Ring:
    """Counters of the last `periods` of 10 s, `width` for each, on a clock that is passed in.

    All processes use Unix time, so that their periods can be added.
    """

    __slots__ = ("_index", "counts", "periods", "width")

    def __init__(self, width: int, periods: int) -> None:
        self.width = width
        self.periods = periods
        self.counts = array("I", bytes(4 * width * periods))
        self._index = 0  # the number of the newest period since 1970

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
        oldest = self.row(now) + self.width
        return Rows(self._index, self.width, self.counts[oldest:] + self.counts[:oldest])


@dataclass(frozen=True, slots=True)
class Rows:
    """The counters of a ring, the oldest period first. `index`: of the newest, since 1970.

    They are one array, because processes send them to each other every second.
    """

    index: int
    width: int
    counts: "array[int]"

    def until(self, now: float) -> "array[int]":
        """Return as many counters, the last row for the period of `now`."""
        later = self.width * max(int(now) // PERIOD_S - self.index, 0)
        later = min(later, len(self.counts))
        return self.counts[later:] + array("I", bytes(4 * later)) if later else self.counts


def summed(rings: Sequence["array[int]"]) -> Sequence[int]:
    """Return the sums, counter by counter, of rings with the same shape."""
    return rings[0] if len(rings) == 1 else list(map(sum, zip(*rings, strict=True)))


def split(counts: Sequence[int], width: int) -> list[Sequence[int]]:
    """Return the rows of a ring's counters."""
    return [counts[at : at + width] for at in range(0, len(counts), width)]


def seconds_covered(now: float, periods: int) -> float:
    """Return the seconds of the last `periods`, with the elapsed part of the newest."""
    return (periods - 1) * PERIOD_S + max(now % PERIOD_S, 1.0)
