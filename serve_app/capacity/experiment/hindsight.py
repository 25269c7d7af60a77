"""The fewest replica-seconds that would have met the SLO, for one who knew the load beforehand.

Each answered request takes one slot for as long as it really took from its first token to its last,
and the fastest tenth's time to first token before that. Two figures come of it:

- `work`: the slots' busy seconds over the slots of a replica. Nobody can do with less.
- `least`: the cheapest of many schedules of replicas, tried in a queue with these requests, that
  meets the SLO. It pays the start of each replica, and keeps one over a dip shorter than a start.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from serve_app.capacity.results.request_records import Record
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.results.statistics import quantile

_SMOOTHING_S = (0, 1, 2, 3, 5, 8, 12, 20, 30)
_HEADROOM = (0.0, 0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class SlotUse:
    """One request: its arrival, and the seconds for which it holds a slot. `first_s` of them pass
    before its first token."""

    at: float
    service_s: float
    first_s: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a replica is: its slots, the seconds of its start, and how few there may be."""

    slots: int
    start_s: float = 0.0
    floor: int = 0


@dataclass(frozen=True, slots=True)
class HindsightCost:
    """Replica-seconds; `least` is None when no schedule that was tried meets the SLO."""

    work: float
    least: float | None


def hindsight_cost(
    records: Sequence[Record], slo: Slo, fleet: Fleet, begin: float, end: float
) -> HindsightCost:
    """For serving `records` between `begin` and `end` (Unix seconds)."""
    jobs = list(_jobs(records, begin))
    work = sum(job.service_s for job in jobs) / fleet.slots
    seconds = max(1, math.ceil(end - begin))
    good = (
        plan
        for plan in _schedules(jobs, fleet, seconds)
        if meets(slo, jobs, waits(jobs, fleet.slots, plan))
    )
    cheapest = min((cost(plan, fleet) for plan in good), default=None)
    return HindsightCost(max(work, fleet.floor * (end - begin)), cheapest)


def _jobs(records: Sequence[Record], begin: float) -> Iterator[SlotUse]:
    served = [r for r in records if r.ok and r.first is not None and r.ended is not None]
    first_s = quantile([r.ttft for r in served if r.ttft is not None], 0.1)
    for record in sorted(served, key=lambda r: r.intended):
        assert record.first is not None
        assert record.ended is not None
        held = first_s + record.ended - record.first
        yield SlotUse(record.intended - begin, held, first_s)


def demand(jobs: Iterable[SlotUse], seconds: int) -> list[int]:
    """The most slots in use within each second, if nobody ever waited."""
    events = sorted(e for job in jobs for e in ((job.at, 1), (job.at + job.service_s, -1)))
    most, busy = [0] * seconds, 0
    second = 0
    for at, change in events:
        while second < min(int(at), seconds - 1):
            second += 1
            most[second] = max(most[second], busy)
        busy += change
        most[second] = max(most[second], busy)
    return most


def _schedules(jobs: Sequence[SlotUse], fleet: Fleet, seconds: int) -> Iterator[list[int]]:
    busy = demand(jobs, seconds)
    for window in _SMOOTHING_S:
        smooth = _averaged(busy, window)
        for headroom in _HEADROOM:
            replicas = [math.ceil(b * (1 + headroom) / fleet.slots - 1e-9) for b in smooth]
            yield _bridged([max(fleet.floor, n) for n in replicas], math.ceil(fleet.start_s))


def _averaged(values: Sequence[float], window: int) -> list[float]:
    """Over `window` seconds to each side."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    size = len(values)
    spans = ((max(0, i - window), min(size, i + window + 1)) for i in range(size))
    return [(sums[high] - sums[low]) / (high - low) for low, high in spans]


def _bridged(plan: Sequence[int], window: int) -> list[int]:
    """Without dips shorter than `window`: who would start anew is kept."""
    longer = [*plan, *([min(plan)] * window)]
    stretched = [max(longer[max(0, i - window) : i + 1]) for i in range(len(longer))]
    return [max(now, min(stretched[i : i + window + 1])) for i, now in enumerate(plan)]


def waits(jobs: Sequence[SlotUse], slots: int, plan: Sequence[int]) -> Iterator[float]:
    """Seconds that each job waits for a slot, first come first served; inf if it never gets one.

    Replicas leave when their jobs are done, as Ray drains them.
    """
    running: list[float] = []
    now = 0.0
    for job in jobs:
        now = max(now, job.at)
        while now < len(plan):
            while running and running[0] <= now:
                heapq.heappop(running)
            if len(running) < slots * plan[int(now)]:
                break
            soonest = running[0] if running else math.inf
            now = min(soonest, math.floor(now) + 1)
        if now >= len(plan):
            yield math.inf
            continue
        heapq.heappush(running, now + job.service_s)
        yield now - job.at


def meets(slo: Slo, jobs: Sequence[SlotUse], waited: Iterable[float]) -> bool:
    """Whether TTFT and E2E would have been within their bounds; the gaps are the engine's own."""
    waiting = list(waited)
    if math.inf in waiting:
        return False
    pairs = list(zip(jobs, waiting, strict=True))
    values = {
        "ttft": [wait + job.first_s for job, wait in pairs],
        "e2e": [wait + job.service_s for job, wait in pairs],
    }
    return all(
        quantile(values[bound.quantity], bound.quantile) <= bound.limit
        for bound in slo.bounds
        if pairs and bound.quantity in values
    )


def cost(plan: Sequence[int], fleet: Fleet) -> float:
    """Replica-seconds of a schedule, its starts included."""
    begun = sum(
        max(0, now - before) for before, now in zip([fleet.floor, *plan], plan, strict=False)
    )
    return sum(plan) + begun * fleet.start_s
