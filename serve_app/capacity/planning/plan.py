"""From what one replica can do to the settings of a pool. Pure functions.

Every value comes with the sentence that says why; what the data does not support is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from serve_app.capacity.planning.choices import (
    Choice,
    Wanted,
    rate_of,
    replica_choices,
    request_choices,
    slot_choices,
    time_choices,
)
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.measured import Measured
from serve_app.capacity.sweep.steps import Kind, unjudged
from serve_app.errors import ServiceError


class Refused(ServiceError):
    """The data does not support a plan; `reasons` are sentences."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("no plan: " + "; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Plan:
    application: str
    deployment: str
    choices: tuple[Choice, ...]

    def config(self) -> dict[str, Any]:
        """A Serve config: to be deployed, or merged by the names of application and deployment."""
        args: dict[str, Any] = {}
        deployment: dict[str, Any] = {"name": self.deployment}
        for choice in self.choices:
            _set(args if choice.place == "args" else deployment, choice.name, choice.value)
        application = {
            "name": self.application,
            "route_prefix": "/",
            "import_path": "serve_app:app",
        }
        return {"applications": [application | {"args": args, "deployments": [deployment]}]}

    def yaml(self) -> str:
        """The config with each value's reason as comments at its head."""
        reasons = "".join(f"# {c.name}: {c.value:g}. {c.because}\n" for c in self.choices)
        return reasons + yaml.safe_dump(self.config(), sort_keys=False)


def plan(measured: Sequence[Measured], slo: Slo, wanted: Wanted) -> Plan:
    """The settings for a peak under an SLO, of the number of slots that serves most.

    Raises Refused.
    """
    usable = [each for each in measured if not list(refusals(each, slo))]
    if not usable:
        reasons = [reason for each in measured for reason in refusals(each, slo)]
        raise Refused(list(dict.fromkeys(reasons)) or ["there is no measurement"])
    best = max(usable, key=lambda each: rate_of(each, slo))
    found = best.largest(slo)
    assert found is not None
    slots = best.slots or _slots(best)
    choices = [
        *slot_choices(best, usable, slots, slo),
        *request_choices(best, found, slots, slo, wanted),
        *replica_choices(found, wanted),
        *time_choices(found, wanted),
    ]
    return Plan(wanted.application, wanted.deployment, tuple(choices))


def refusals(measured: Measured, slo: Slo) -> Iterator[str]:
    """Why this measurement can't be planned from, a sentence each; nothing if it can."""
    name = f"{measured.slots} slots: " if measured.slots else ""
    for reason in measured.invalid:
        yield f"{name}a run is invalid: {reason}"
    if not any(step.kind is Kind.RATE for step in measured.steps):
        yield f"{name}no step of arrivals: users at once hide the queue that callers see"
        return
    if measured.saturation() is None:
        yield f"{name}no saturation reached: how much more one replica can do is not known"
    if measured.largest(slo) is None:
        yield from (f"{name}{reason}" for reason in _nothing_met(measured, slo))


def _nothing_met(measured: Measured, slo: Slo) -> Iterator[str]:
    few = unjudged([s for s in measured.steps if s.kind is Kind.RATE], slo)
    for finding in few:
        yield (
            f"too few samples for {finding.bound}: a step had {finding.count} of the "
            f"{finding.bound.needed} requests that it needs"
        )
    if not few:
        least = min(s.level for s in measured.steps if s.kind is Kind.RATE)
        yield f"{slo} was missed even at the lowest rate, {least:.3g} requests/s"


def _slots(measured: Measured) -> int:
    """Where nobody has said how many there are: at the knee of the throughput."""
    at_knee = measured.knee()
    if at_knee is None:
        raise Refused(["the number of slots is not known, and there are no steps of users to see"])
    return round(at_knee.level)


def _set(value: dict[str, Any], dotted: str, item: float | int) -> None:
    *path, name = dotted.split(".")
    for each in path:
        value = value.setdefault(each, {})
    value[name] = item
