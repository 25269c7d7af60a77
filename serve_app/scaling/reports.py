"""Merges the reports of many replicas: work that arrived, work that waits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from serve_app.scaling.meter import ARRIVED, SLOT, SLOTS, SLOWDOWN, UNMEASURED, WAITING

_REMEMBERED = 1024  # replicas


Reports = Mapping[str, Mapping[str, float]]  # by replica


@dataclass(frozen=True, slots=True)
class CounterGrowth:
    """A counter of each replica, and its growth in all of them between two reports.

    `by_replica`: since the start of the replica.
    """

    by_replica: Mapping[str, float] = field(default_factory=dict)
    grown: float = 0.0

    def after(self, reports: Reports, name: str) -> Self:
        """Read the counters. One that fell is a new process, and counts from zero.

        A number that is missing, negative or not finite counts as the last one of its replica.
        """
        known = self.by_replica
        now = {
            replica: _count(report.get(name), known.get(replica, 0.0))
            for replica, report in reports.items()
        }
        # At first, the begin of the counters is unknown.
        grown = sum(_growth(n, known.get(replica)) for replica, n in now.items()) if known else 0.0
        # A replica whose report is late continues from its earlier figures.
        return type(self)(dict(list({**known, **now}.items())[-_REMEMBERED:]), grown)


@dataclass(frozen=True, slots=True)
class ReportedWork:
    """The latest reports of running replicas, merged, in seconds of work of a full replica.

    `arrived_s`: work that arrived since the reports before; `waiting_s`: work that waits. `slot_s`:
    how long a request holds its slot, as expected until it was measured. `slots`: of a replica.
    `slowdown`: the time of a request in a full replica, in that in replicas as busy as lately.
    """

    measured: CounterGrowth = field(default_factory=CounterGrowth)
    unmeasured: CounterGrowth = field(default_factory=CounterGrowth)
    queued_s: float = 0.0
    arrived_s: float = 0.0
    waiting_s: float = 0.0
    slot_s: float = 0.0
    slots: float = 1.0
    slowdown: float = 1.0

    def after(self, reports: Reports, queued: float) -> Self:
        """Merge `reports`, with `queued` requests in routers and gateways."""
        measured = self.measured.after(reports, ARRIVED)
        unmeasured = self.unmeasured.after(reports, UNMEASURED)
        # Some replicas do not know it: all of a pool are about as busy.
        slowdown = _mean(reports, SLOWDOWN) or self.slowdown
        slot_s = _mean(reports, SLOT) * slowdown or self.slot_s
        slots = _mean(reports, SLOTS) or self.slots
        mean_s = slot_s / slots
        queued_s = max(0.0, queued) * mean_s if math.isfinite(queued) else self.queued_s
        in_replicas = mean_s * sum(_number(report, WAITING) for report in reports.values())
        grown = measured.grown * slowdown + unmeasured.grown * mean_s
        # A request that went from a gateway into a replica has arrived only once.
        arrived_s = max(0.0, grown + queued_s - self.queued_s)
        waiting_s = queued_s + in_replicas
        return type(self)(
            *(measured, unmeasured, queued_s, arrived_s, waiting_s, slot_s, slots, slowdown)
        )


def _count(value: float | None, last: float) -> float:
    return last if value is None or not math.isfinite(value) or value < 0 else value


def _growth(count: float, last: float | None) -> float:
    if last is None or count < last:
        return count
    return count - last


def _number(report: Mapping[str, float], name: str) -> float:
    value = report.get(name, 0.0)
    return value if math.isfinite(value) and value > 0 else 0.0


def _mean(reports: Mapping[str, Mapping[str, float]], name: str) -> float:
    values = [value for report in reports.values() if (value := _number(report, name))]
    return sum(values) / len(values) if values else 0.0
