"""Policies beside Ray's own: a fixed number of replicas, and an oracle that knows the future."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.scaling.reports import Reports


class TargetPolicy(Protocol):
    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        """Return the new target, given running replicas, the last target and reported requests."""


@runtime_checkable
class WorkTargetPolicy(TargetPolicy, Protocol):
    """A policy that counts work."""

    def reported(self, reports: Reports, queued: int) -> None:
        """Note the reports of replicas and of routers, which stay until the next."""


@dataclass(frozen=True, slots=True)
class Static:
    replicas: int

    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        return self.replicas


@dataclass(frozen=True, slots=True)
class ReplicaSchedule:
    """A schedule: `replicas[i]` from i * `step_s` on; the last number stays."""

    step_s: float
    replicas: tuple[int, ...]

    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        return self.replicas[min(int(now / self.step_s), len(self.replicas) - 1)]


@dataclass(frozen=True, slots=True)
class Demand:
    """The replicas that the arrivals of each step keep busy if no request waits."""

    step_s: float
    replicas: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.replicas) / len(self.replicas) if self.replicas else 0.0

    @property
    def peak(self) -> float:
        return max(self.replicas, default=0.0)


def demand(
    requests: Iterable[WorkloadRequest], model: ServiceModel, slots: int, step_s: float = 10.0
) -> Demand:
    """Compute the demand at the speed of a replica whose slots are all busy."""
    work: list[float] = []
    for request in requests:
        step = int(request.at_s / step_s)
        work.extend([0.0] * (step + 1 - len(work)))
        work[step] += model.service_s(request.prompt_tokens, request.output_tokens, slots) / slots
    return Demand(step_s, tuple(step_work / step_s for step_work in work))


def oracle(
    demand: Demand, lead_s: float, headroom: float = 1.0, hold_s: float = 60.0
) -> ReplicaSchedule:
    """Schedule replicas to start `lead_s` before the demand, and to stay over lulls of `hold_s`.

    `headroom` is a factor on the demand.
    """
    ahead = math.ceil((lead_s + demand.step_s) / demand.step_s)
    behind = math.ceil(hold_s / demand.step_s)
    steps = demand.replicas
    replicas = [max(1, math.ceil(headroom * step_work)) for step_work in steps]
    return ReplicaSchedule(
        demand.step_s,
        tuple(
            max(replicas[max(0, i - behind) : i + ahead + 1], default=1) for i in range(len(steps))
        ),
    )
