"""The last 15 minutes of a fleet: rates, outcomes and times to first token."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from serve_app.api.outcome import Outcome
from serve_app.api.request_trace import RequestTrace
from serve_app.fleet.rings import PERIOD_S, Ring, Rows, seconds_covered, split, summed

PERIODS = 90
# Upper bounds of the times to first token, in seconds: 5 ms to 5 min, each half as much again.
TTFT_BOUNDS = [0.005 * 1.5**step for step in range(28)]

# The columns of a ring.
_OUTCOMES = list(Outcome)
_COLUMN = {outcome: column for column, outcome in enumerate(_OUTCOMES)}
_PROMPT = len(_OUTCOMES)
_CACHEABLE, _CACHED, _GENERATED, _TTFT = range(_PROMPT + 1, _PROMPT + 5)
_WIDTH = _TTFT + len(TTFT_BOUNDS) + 1
# Periods of the present rates: fewer would show the bursts of answers.
RECENT = 4


def new_ring() -> Ring:
    """Return a ring of 90 periods: 14 KiB."""
    return Ring(_WIDTH, PERIODS)


def count(ring: Ring, trace: RequestTrace, now: float) -> None:
    """Count a request that has ended."""
    row, counts, usage = ring.row(now), ring.counts, trace.usage
    counts[row + _COLUMN[trace.outcome]] += 1
    if usage.generated:
        counts[row + _GENERATED] += usage.generated
    if usage.prompt:
        counts[row + _PROMPT] += usage.prompt
        if usage.cached is not None:
            counts[row + _CACHEABLE] += usage.prompt
            counts[row + _CACHED] += usage.cached
    if (ttft := trace.ttft) is not None:
        counts[row + _TTFT + bisect_left(TTFT_BOUNDS, ttft)] += 1


def series(histories: Sequence[Rows], now: float) -> dict[str, Any]:
    """Return the summed series of all processes, the oldest value first."""
    rings = [history.until(now) for history in histories]
    rows = split(summed(rings), _WIDTH) if rings else [[0] * _WIDTH] * PERIODS
    p50_s, p95_s = zip(*(quantiles(row[_TTFT:], 0.5, 0.95) for row in rows), strict=True)
    return {
        "end": (int(now) // PERIOD_S + 1) * PERIOD_S,
        "step_s": PERIOD_S,
        "requests_per_s": _per_s([sum(row[:_PROMPT]) for row in rows], now),
        "tokens_per_s": _per_s([row[_GENERATED] for row in rows], now),
        "ttft_p50_s": list(p50_s),
        "ttft_p95_s": list(p95_s),
        "outcomes": {
            str(outcome): [row[column] for row in rows] for outcome, column in _COLUMN.items()
        },
    }


def recent(histories: Sequence[Rows], now: float) -> dict[str, Any]:
    """Return the rates of the last 30 to 40 s."""
    total = _recent_sums(histories, now)
    seconds = seconds_covered(now, RECENT)
    p50_s, p95_s = quantiles(total[_TTFT:], 0.5, 0.95)
    return {
        "requests_per_s": round(sum(total[:_PROMPT]) / seconds, 2),
        "tokens_per_s": round(total[_GENERATED] / seconds, 1),
        "ttft_p50_s": p50_s,
        "ttft_p95_s": p95_s,
        "cached_share": share(total[_CACHED], total[_CACHEABLE]),
    }


def _recent_sums(histories: Iterable[Rows], now: float) -> list[int]:
    recent = (history.until(now)[-RECENT * _WIDTH :] for history in histories)
    rows = [row for counts in recent for row in split(counts, _WIDTH)]
    return list(map(sum, zip(*rows, strict=True))) or [0] * _WIDTH


def replica_rates(history: Rows, now: float) -> dict[str, Any]:
    """Return the rates of one replica of the direct topology."""
    total = _recent_sums([history], now)
    return {
        "tokens_per_s": round(total[_GENERATED] / seconds_covered(now, RECENT), 1),
        "cached_share": share(total[_CACHED], total[_CACHEABLE]),
    }


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def quantiles(counts: Sequence[int], *shares: float) -> list[float | None]:
    """Return the times below which these shares of the counted times lie; None without any.

    Times within a bin are assumed to be spread evenly.
    """
    sums = [0, *accumulate(counts)]  # counts of the bins before each bin
    if not sums[-1]:
        return [None] * len(shares)
    return [_time_at(share * sums[-1], sums) for share in shares]


def _time_at(rank: float, sums: Sequence[int]) -> float:
    """Return the time with this rank."""
    bin_ = bisect_left(sums, rank) - 1
    low = TTFT_BOUNDS[bin_ - 1] if bin_ else 0.0
    high = TTFT_BOUNDS[min(bin_, len(TTFT_BOUNDS) - 1)]
    return round(low + (high - low) * (rank - sums[bin_]) / (sums[bin_ + 1] - sums[bin_]), 4)


def _per_s(numbers: list[int], now: float) -> list[float | None]:
    """Return the rates of all periods; None for the newest one until half of it is over.

    Otherwise every chart would end with a fall.
    """
    elapsed = now % PERIOD_S
    newest = None if elapsed < PERIOD_S / 2 else round(numbers[-1] / elapsed, 2)
    return [*(round(number / PERIOD_S, 2) for number in numbers[:-1]), newest]
