"""Merges the reports of many replicas: work that arrived, work that waits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from serve_app.scaling.meter import ARRIVED, SLOT, SLOTS, WAITING

_REMEMBERED = 1024  # replicas


@dataclass(frozen=True, slots=True)
class ReportedWork:
    """The latest reports of running replicas, merged, in seconds of work.

    `arrived_s`: work that arrived since the reports before; `waiting_s`: work that waits.
    """

    arrived: Mapping[str, float] = field(default_factory=dict)  # by replica, since its start
    queued_s: float = 0.0
    arrived_s: float = 0.0
    waiting_s: float = 0.0
    slot_s: float = 0.0

    def after(self, reports: Mapping[str, Mapping[str, float]], queued: float) -> Self:
        """Merge `reports` by replica, with `queued` requests in routers and gateways.

        A number that is missing, negative or not finite counts as the last one of its replica; a
        counter that fell is a new process, and counts from zero.
        """
        known = self.arrived
        now = {name: _count(report, known.get(name)) for name, report in reports.items()}
        # At first, the begin of the counters is unknown.
        grown = sum(_growth(count, known.get(name)) for name, count in now.items()) if known else 0
        # A replica whose report is late continues from its earlier figures.
        arrived = dict(list({**known, **now}.items())[-_REMEMBERED:])
        slot_s = _mean(reports, SLOT) or self.slot_s
        slots = _mean(reports, SLOTS) or 1.0
        queued_s = max(0.0, queued) * slot_s / slots if math.isfinite(queued) else self.queued_s
        in_replicas = sum(_number(report, WAITING) for report in reports.values())
        # A request that went from a gateway into a replica has arrived only once.
        arrived_s = max(0.0, grown + queued_s - self.queued_s)
        return type(self)(arrived, queued_s, arrived_s, queued_s + in_replicas, slot_s)


def _count(report: Mapping[str, float], last: float | None) -> float:
    value = report.get(ARRIVED)
    if value is None or not math.isfinite(value) or value < 0:
        return last or 0.0
    return value


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
