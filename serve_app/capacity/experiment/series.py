"""Records over time, for the plots. Pure functions; seconds count from `begin`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.results.statistics import quantile

# The maximum of bins over a run, and the minimum of requests in a bin on average.
_MAX_BINS = 120
_MIN_REQUESTS = 2
_WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)

_SERVED = (ClientOutcome.OK, ClientOutcome.CANCELLED)


@dataclass(frozen=True, slots=True)
class Bins:
    """Spans of equal length from `begin` (Unix seconds)."""

    begin: float
    width: float
    count: int

    @classmethod
    def over(cls, begin: float, end: float, requests: int) -> "Bins":
        seconds = max(1.0, end - begin)
        max_bins = min(_MAX_BINS, max(1, requests // _MIN_REQUESTS))
        width = next((w for w in _WIDTHS_S if seconds / w <= max_bins), _WIDTHS_S[-1])
        return cls(begin, width, max(1, -int(-seconds // width)))

    @property
    def edges(self) -> list[float]:
        return [self.width * i for i in range(self.count + 1)]

    @property
    def middles(self) -> list[float]:
        return [self.width * (i + 0.5) for i in range(self.count)]

    def place(self, at: float) -> int | None:
        """Return the bin of a moment; None outside."""
        index = int((at - self.begin) // self.width)
        return index if 0 <= index < self.count else None

    def rates(self, moments: Sequence[float]) -> list[float]:
        """Count the events per second in each bin."""
        counted = Counter(map(self.place, moments))
        return [counted[i] / self.width for i in range(self.count)]

    def pooled(
        self, records: Sequence[Record], value: Callable[[Record], float | None]
    ) -> list[list[float]]:
        """Collect the values of the records intended in each bin."""
        pools: list[list[float]] = [[] for _ in range(self.count)]
        for record in records:
            place, number = self.place(record.intended), value(record)
            if place is not None and number is not None:
                pools[place].append(number)
        return pools


@dataclass(frozen=True, slots=True)
class Series:
    """Values per bin: arrivals and answers per second, quantiles of TTFT, failures by outcome."""

    bins: Bins
    offered: list[float]
    completed: list[float]
    ttft: dict[str, list[float]]
    failures: dict[str, list[int]]


def series(records: Sequence[Record], bins: Bins) -> Series:
    """Bin arrivals and TTFT by the intended start, completions by their end."""
    served = [record for record in records if record.ok]
    pools = bins.pooled(served, lambda record: record.ttft)
    return Series(
        bins=bins,
        offered=bins.rates([record.intended for record in records]),
        completed=bins.rates([record.ended for record in served if record.ended is not None]),
        ttft={name: [quantile(p, q) for p in pools] for name, q in (("p50", 0.5), ("p99", 0.99))},
        failures=_failures(records, bins),
    )


def _failures(records: Sequence[Record], bins: Bins) -> dict[str, list[int]]:
    failed: dict[str, list[int]] = {}
    for record in records:
        place = bins.place(record.intended)
        if record.outcome not in _SERVED and place is not None:
            failed.setdefault(str(record.outcome), [0] * bins.count)[place] += 1
    return failed
