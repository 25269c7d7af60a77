"""Settings of a pool, computed from the limits of one replica. Pure functions.

Every value has a sentence with its reason. Without sufficient data there is no plan.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from serve_app.capacity.planning.recommendations import (
    PlannedDemand,
    Recommendation,
    replica_recommendations,
    request_recommendations,
    slot_recommendations,
    speed_recommendations,
    time_recommendations,
)
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.measured import Measured
from serve_app.capacity.sweep.report import SweepReport, report
from serve_app.capacity.sweep.steps import StepKind
from serve_app.capacity.workload.dotted import set_dotted
from serve_app.errors import ServiceError


class Refused(ServiceError):
    """The data does not support a plan; `reasons` are sentences."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("no plan: " + "; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a pool, with a reason for each."""

    application: str
    deployment: str
    recommendations: tuple[Recommendation, ...]
    is_direct: bool = True

    def config(self) -> dict[str, Any]:
        """Build a Serve config, to deploy or to merge by the names in it."""
        args: dict[str, Any] = {} if self.is_direct else {"topology": "gateway"}
        deployment: dict[str, Any] = {"name": self.deployment}
        for setting in self.recommendations:
            target = args if setting.place == "args" else deployment
            set_dotted(target, setting.name, setting.value)
        if deployment["autoscaling_config"]["min_replicas"] == 0:
            # An override alone can't let a pool scale to zero.
            set_dotted(args, "autoscaling.min_replicas", 0)
        application = {
            "name": self.application,
            "route_prefix": "/",
            "import_path": "serve_app:app",
        }
        return {"applications": [application | {"args": args, "deployments": [deployment]}]}

    def yaml(self) -> str:
        """Render the config as YAML, with the reasons as comments at its head."""
        reasons = [
            f"# {setting.name}: {setting.value:g}. {setting.because}\n"
            for setting in self.recommendations
        ]
        return "".join(reasons) + yaml.safe_dump(self.config(), sort_keys=False)


def make_plan(measured: Sequence[Measured], slo: Slo, demand: PlannedDemand) -> Plan:
    """Recommend settings for a peak under an SLO, for the number of slots that serves most.

    Raises Refused.
    """
    reports = [report(measurement, slo) for measurement in measured]
    usable = [candidate for candidate in reports if not list(refusals(candidate))]
    if not usable:
        reasons = [reason for candidate in reports for reason in refusals(candidate)]
        raise Refused(list(dict.fromkeys(reasons)) or ["there is no measurement"])
    best = max(usable, key=lambda candidate: candidate.rate)
    assert best.largest is not None
    slots = best.measured.slots or _slots_at_knee(best)
    recommendations = [
        *slot_recommendations(best, usable, slots),
        *request_recommendations(best, best.largest, slots, demand),
        *speed_recommendations(best, best.largest, demand),
        *replica_recommendations(best.largest, demand),
        *time_recommendations(best.largest, demand),
    ]
    return Plan(demand.application, demand.deployment, tuple(recommendations), demand.direct)


def refusals(report: SweepReport) -> Iterator[str]:
    """Yield the reasons why no plan can be made from this measurement."""
    measured = report.measured
    name = f"{measured.slots} slots: " if measured.slots else ""
    for reason in measured.invalid:
        yield f"{name}a run is invalid: {reason}"
    if not any(step.kind is StepKind.RATE for step in measured.steps):
        yield f"{name}there is no step of arrivals, and steps of users hide the queue"
        return
    if report.saturation is None:
        yield f"{name}saturation was not reached, so the limit of one replica is unknown"
    if report.largest is None:
        yield from (f"{name}{reason}" for reason in _nothing_met(report))


def _nothing_met(report: SweepReport) -> Iterator[str]:
    for result in report.unjudged:
        yield (
            f"too few samples for {result.bound}: a step had {result.count} of the "
            f"{result.bound.needed} requests that it needs"
        )
    if not report.unjudged:
        lowest = min(s.level for s in report.measured.steps if s.kind is StepKind.RATE)
        yield f"{report.slo} was missed even at the lowest rate, {lowest:.3g} requests/s"


def _slots_at_knee(report: SweepReport) -> int:
    """Estimate an unknown number of slots by the knee of the throughput. Raises Refused."""
    if report.knee is None:
        raise Refused(["the number of slots is not known, and no steps of users show it"])
    return round(report.knee.level)
