"""Policies beside Ray's own: a fixed number of replicas, and an oracle that knows the future."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import Request


class Policy(Protocol):
    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        """The number of replicas wanted, from what is running, wanted and reported."""


@dataclass(frozen=True, slots=True)
class Static:
    replicas: int

    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        return self.replicas


@dataclass(frozen=True, slots=True)
class Schedule:
    """`replicas[i]` from i * `step_s` on; the last one for ever."""

    step_s: float
    replicas: tuple[int, ...]

    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        return self.replicas[min(int(now / self.step_s), len(self.replicas) - 1)]


@dataclass(frozen=True, slots=True)
class Demand:
    """How many replicas the arrivals of each step keep busy, were they never to wait."""

    step_s: float
    replicas: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.replicas) / len(self.replicas) if self.replicas else 0.0

    @property
    def peak(self) -> float:
        return max(self.replicas, default=0.0)


def demand(
    requests: Iterable[Request], model: ServiceModel, slots: int, step_s: float = 10.0
) -> Demand:
    """The work of the requests, at the speed of a replica whose slots are all busy."""
    work: list[float] = []
    for request in requests:
        step = int(request.at_s / step_s)
        work.extend([0.0] * (step + 1 - len(work)))
        work[step] += model.service_s(request.prompt_tokens, request.output_tokens, slots) / slots
    return Demand(step_s, tuple(step_work / step_s for step_work in work))


def oracle(demand: Demand, lead_s: float, headroom: float = 1.0, hold_s: float = 60.0) -> Schedule:
    """Starts replicas `lead_s` before they are needed and keeps them while they will be needed
    again within `hold_s`; `headroom` is a factor on the demand.
    """
    ahead = math.ceil((lead_s + demand.step_s) / demand.step_s)
    behind = math.ceil(hold_s / demand.step_s)
    steps = demand.replicas
    replicas = [max(1, math.ceil(headroom * step_work)) for step_work in steps]
    return Schedule(
        demand.step_s,
        tuple(
            max(replicas[max(0, i - behind) : i + ahead + 1], default=1) for i in range(len(steps))
        ),
    )
