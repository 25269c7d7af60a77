"""The fewest replica-seconds that would have met the SLO with the load known in advance.

An answered request is modelled as one slot for the measured time from its first token to its last,
plus the 10th percentile of TTFT before that. Two figures follow:

- `work`: the busy seconds of all slots over the slots of a replica, a lower bound for any schedule.
- `cheapest`: the cheapest of many simulated schedules that meets the SLO with these requests. It
  pays for the start of each replica, and keeps replicas over dips shorter than a start.
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
    """One request's use of a slot: its arrival, and the seconds for which it holds the slot.

    The first token comes after `first_s` of them.
    """

    at: float
    service_s: float
    first_s: float


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """The slots of a replica, the seconds of its start, and the minimum number of replicas."""

    slots: int
    start_s: float = 0.0
    floor: int = 0


@dataclass(frozen=True, slots=True)
class HindsightCost:
    """Replica-seconds; `cheapest` is None if no simulated schedule meets the SLO."""

    work: float
    cheapest: float | None


def hindsight_cost(
    records: Sequence[Record], slo: Slo, fleet: FleetSpec, begin: float, end: float
) -> HindsightCost:
    """Compute the cost of serving `records` between `begin` and `end` (Unix seconds)."""
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
        service_s = first_s + record.ended - record.first
        yield SlotUse(record.intended - begin, service_s, first_s)


def busy_slots(jobs: Iterable[SlotUse], seconds: int) -> list[int]:
    """Return the maximum number of busy slots in each second, if no request waited."""
    events = sorted(e for job in jobs for e in ((job.at, 1), (job.at + job.service_s, -1)))
    peaks, busy = [0] * seconds, 0
    second = 0
    for at, change in events:
        while second < min(int(at), seconds - 1):
            second += 1
            peaks[second] = max(peaks[second], busy)
        busy += change
        peaks[second] = max(peaks[second], busy)
    return peaks


def _schedules(jobs: Sequence[SlotUse], fleet: FleetSpec, seconds: int) -> Iterator[list[int]]:
    busy = busy_slots(jobs, seconds)
    for window in _SMOOTHING_S:
        smooth = _averaged(busy, window)
        for headroom in _HEADROOM:
            replicas = [math.ceil(b * (1 + headroom) / fleet.slots - 1e-9) for b in smooth]
            yield _bridged([max(fleet.floor, n) for n in replicas], math.ceil(fleet.start_s))


def _averaged(values: Sequence[float], window: int) -> list[float]:
    """Average over `window` seconds on both sides."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    size = len(values)
    spans = ((max(0, i - window), min(size, i + window + 1)) for i in range(size))
    return [(sums[high] - sums[low]) / (high - low) for low, high in spans]


def _bridged(plan: Sequence[int], window: int) -> list[int]:
    """Fill dips shorter than `window`, after which replicas would have to start again."""
    longer = [*plan, *([min(plan)] * window)]
    stretched = [max(longer[max(0, i - window) : i + 1]) for i in range(len(longer))]
    return [max(now, min(stretched[i : i + window + 1])) for i, now in enumerate(plan)]


def waits(jobs: Sequence[SlotUse], slots: int, plan: Sequence[int]) -> Iterator[float]:
    """Yield the seconds for which requests wait for a slot, in FIFO order; inf if they get none.

    Replicas leave when their requests are done, as Ray drains them.
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
            next_end = running[0] if running else math.inf
            now = min(next_end, math.floor(now) + 1)
        if now >= len(plan):
            yield math.inf
            continue
        heapq.heappush(running, now + job.service_s)
        yield now - job.at


def meets(slo: Slo, jobs: Sequence[SlotUse], waited: Iterable[float]) -> bool:
    """Tell whether TTFT and E2E meet their bounds. Gaps do not depend on the schedule."""
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


def cost(plan: Sequence[int], fleet: FleetSpec) -> float:
    """Return the replica-seconds of a schedule with its starts."""
    starts = sum(
        max(0, now - before) for before, now in zip([fleet.floor, *plan], plan, strict=False)
    )
    return sum(plan) + starts * fleet.start_s
