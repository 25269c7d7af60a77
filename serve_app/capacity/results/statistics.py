"""Figures of pooled records. Pure functions; durations in seconds, rates per second."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.capacity.results.request_records import ClientOutcome, Record

QUANTILES = (0.5, 0.9, 0.95, 0.99)
# Ended by the client: they count neither as served nor as failed.
_NOT_COUNTED = (ClientOutcome.CANCELLED,)


def quantile(values: Sequence[float], q: float) -> float:
    """Return the q-quantile (0..1), linear between neighbours; nan without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@dataclass(frozen=True, slots=True)
class Spread:
    """Count, mean and quantiles of one quantity; quantiles by name, e.g. `p99`."""

    count: int
    mean: float
    quantiles: dict[str, float]


def spread(values: Iterable[float]) -> Spread:
    """Compute the spread of pooled values."""
    pooled = sorted(values)
    mean = sum(pooled) / len(pooled) if pooled else math.nan
    return Spread(len(pooled), mean, {f"p{100 * q:g}": quantile(pooled, q) for q in QUANTILES})


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a run or of a window of it. `error_rate`: the share of requests that failed."""

    requests: int
    outcomes: dict[str, int]
    seconds: float
    requests_per_s: float
    output_tokens_per_s: float
    error_rate: float
    ttft: Spread
    itl: Spread
    tpot: Spread
    e2e: Spread
    lateness: Spread


def counted_records(records: Iterable[Record]) -> list[Record]:
    """Return the records that count: all but the cancelled ones."""
    return [record for record in records if record.outcome not in _NOT_COUNTED]


def error_rate(records: Sequence[Record]) -> float:
    """Return the share of failures: non-2xx, transport errors, truncated or dropped."""
    counted = counted_records(records)
    return sum(not record.ok for record in counted) / len(counted) if counted else math.nan


def summarise(records: Sequence[Record], seconds: float) -> Summary:
    """Compute the figures of records over `seconds` of wall time; latencies of successes only."""
    served = [record for record in records if record.ok]
    return Summary(
        requests=len(records),
        outcomes=dict(Counter(str(record.outcome) for record in records)),
        seconds=seconds,
        requests_per_s=len(served) / seconds if seconds else math.nan,
        output_tokens_per_s=sum(r.output_tokens or 0 for r in served) / seconds
        if seconds
        else math.nan,
        error_rate=error_rate(records),
        ttft=spread(r.ttft for r in served if r.ttft is not None),
        itl=spread(gap for r in served for gap in r.gaps),
        tpot=spread(r.tpot for r in served if r.tpot is not None),
        e2e=spread(r.e2e for r in served if r.e2e is not None),
        lateness=spread(r.lateness for r in records if r.lateness is not None),
    )


def between(records: Iterable[Record], begin: float, end: float) -> list[Record]:
    """Select the records intended in [begin, end)."""
    return [record for record in records if begin <= record.intended < end]
