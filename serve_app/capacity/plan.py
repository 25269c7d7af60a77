"""From what one replica can do to the settings of a pool. Pure functions.

Every value comes with the sentence that says why; what the data does not support is refused.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

from serve_app.capacity.measured import Measured
from serve_app.capacity.slo import Slo
from serve_app.capacity.steps import Kind, Step, unjudged
from serve_app.errors import ServiceError

# The share of what one replica can do that is planned for: the rest is for chance and for growth
# while another replica starts.
_HEADROOM = 0.85
# Serve's bound lies above ours where the pool is the ingress, so that our own 503 says so.
_ABOVE = 4


class Refused(ServiceError):
    """The data does not support a plan; `reasons` are sentences."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("no plan: " + "; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Arrivals per second to be served, at the peak and at quiet times; seconds of a cold start.

    `base` None: unknown. `spare`: replicas that may be lost at the peak.
    """

    peak: float
    base: float | None = None
    startup_s: float | None = None
    spare: int = 0
    application: str = "default"
    deployment: str = "pool"
    direct: bool = True
    to_zero: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One setting: where it belongs (`args` or `deployment`), its dotted name, value and reason."""

    place: str
    name: str
    value: float | int
    because: str


@dataclass(frozen=True, slots=True)
class Plan:
    application: str
    deployment: str
    choices: tuple[Choice, ...]

    def config(self) -> dict[str, Any]:
        """A partial Serve config, to be merged by the names of application and deployment."""
        args: dict[str, Any] = {}
        deployment: dict[str, Any] = {"name": self.deployment}
        for choice in self.choices:
            _set(args if choice.place == "args" else deployment, choice.name, choice.value)
        application: dict[str, Any] = {"name": self.application}
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
    best = max(usable, key=lambda each: _rate(each, slo))
    found = best.largest(slo)
    assert found is not None
    slots = best.slots or _slots(best)
    choices = [
        *_slot_choices(best, usable, slots, slo),
        *_request_choices(best, found, slots, slo, wanted),
        *_replica_choices(found, wanted),
        *_time_choices(found, wanted),
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


def _slot_choices(
    best: Measured, measured: Sequence[Measured], slots: int, slo: Slo
) -> Iterator[Choice]:
    others = [each for each in measured if each is not best and each.slots]
    tokens = best.best_tokens_per_s()
    sentence = f"One replica made {tokens:.0f} tokens/s at most"
    if others:
        rates = ", ".join(f"{_rate(each, slo):.3g} with {each.slots}" for each in others)
        sentence += (
            f" and met the SLO up to {_rate(best, slo):.3g} requests/s, the most of all values "
            f"tried ({rates})"
        )
    yield Choice("args", "engine.slots", slots, sentence + ".")


def _request_choices(
    best: Measured, found: Step, slots: int, slo: Slo, wanted: Wanted
) -> Iterator[Choice]:
    bound = _ttft_bound(slo)
    queue = max(1, math.floor(found.completed_per_s * bound)) if bound else 2 * slots
    admitted = slots + queue
    rate = _HEADROOM * found.completed_per_s
    target = min(ongoing_at(best.steps, rate), admitted - 0.5)
    yield Choice(
        "args",
        "queue",
        queue,
        (
            f"One replica completes {found.completed_per_s:.3g} requests/s: who stands further "
            f"back waits longer than the SLO's {bound:g} s."
            if bound
            else f"Two turns of the {slots} slots: the SLO bounds no wait."
        ),
    )
    yield Choice(
        "deployment",
        "max_ongoing_requests",
        admitted + (_ABOVE if wanted.direct else 0),
        f"Slots and queue, {admitted}"
        + (
            ", and a few more, so that the surplus gets the service's own 503."
            if wanted.direct
            else ": the rest waits in the gateway for any replica."
        ),
    )
    yield Choice(
        "deployment",
        "max_queued_requests",
        max(1, math.ceil(_replicas(found, wanted) * rate * (bound or found.e2e_s))),
        "What all replicas at the peak begin within "
        + (f"the SLO's {bound:g} s" if bound else "one answer's time")
        + ": who comes later is told so at once.",
    )
    yield Choice(
        "deployment",
        "autoscaling_config.target_ongoing_requests",
        round(target, 2),
        f"At {rate:.3g} requests/s, {_HEADROOM:.0%} of the most that met the SLO, one replica holds "
        f"{target:.3g} requests on average (between the measured steps). It is below "
        "max_ongoing_requests, else Ray would never see the need.",
    )


def _replica_choices(found: Step, wanted: Wanted) -> Iterator[Choice]:
    rate = _HEADROOM * found.completed_per_s
    most = _replicas(found, wanted)
    each = f"one replica serves {rate:.3g} requests/s ({_HEADROOM:.0%} of what met the SLO)"
    yield Choice(
        "deployment",
        "autoscaling_config.max_replicas",
        most,
        f"The peak of {wanted.peak:g} requests/s: {each}"
        + (f", {wanted.spare} to spare." if wanted.spare else "."),
    )
    if wanted.base is None:
        least = 0 if wanted.to_zero else 1
        reason = "No load at quiet times was named."
    else:
        least = math.ceil(wanted.base / rate) if wanted.base else int(not wanted.to_zero)
        reason = f"Quiet times have {wanted.base:g} requests/s: {each}."
    least = min(most, least)
    yield Choice("deployment", "autoscaling_config.min_replicas", least, reason)
    yield Choice(
        "deployment",
        "autoscaling_config.initial_replicas",
        max(1, least),
        "As many as at quiet times: the rest follows the load.",
    )


def _time_choices(found: Step, wanted: Wanted) -> Iterator[Choice]:
    """Delays weigh a cold start against flapping: without knowing the start they are not set."""
    if wanted.startup_s is None:
        return
    start, answer = wanted.startup_s, found.e2e_s
    look_back = max(2.0, round(answer, 1))
    yield Choice(
        "deployment",
        "autoscaling_config.look_back_period_s",
        look_back,
        f"One answer takes {answer:.3g} s: a shorter window sees noise, a longer one the past.",
    )
    yield Choice(
        "deployment",
        "autoscaling_config.metrics_interval_s",
        max(0.5, round(look_back / 5, 1)),
        "Five reports in a window.",
    )
    yield Choice(
        "deployment",
        "autoscaling_config.upscale_delay_s",
        round(min(5.0, start / 10), 1),
        f"A tenth of the {start:.3g} s that a replica takes to start, at most 5 s: waiting adds to "
        "them, and the window filters noise already.",
    )
    yield Choice(
        "deployment",
        "autoscaling_config.downscale_delay_s",
        max(30.0, round(3 * start)),
        f"A replica that is given up and needed again costs {start:.3g} s of start: a lull must "
        "last three times as long.",
    )


def ongoing_at(steps: Sequence[Step], rate: float) -> float:
    """Requests at once at a rate, on straight lines between the measured ones, from zero on."""
    known = [(0.0, 0.0)]
    known += sorted((s.offered_per_s, s.ongoing) for s in steps if s.kind is Kind.RATE)
    for (low, few), (high, many) in pairwise(known):
        if rate <= high:
            return few + (many - few) * (rate - low) / (high - low)
    return known[-1][1]


def _rate(measured: Measured, slo: Slo) -> float:
    found = measured.largest(slo)
    return found.completed_per_s if found else 0.0


def _replicas(found: Step, wanted: Wanted) -> int:
    rate = _HEADROOM * found.completed_per_s
    return max(1, math.ceil(wanted.peak / rate - 1e-9) + wanted.spare)


def _slots(measured: Measured) -> int:
    """Where nobody has said how many there are: at the knee of the throughput."""
    at_knee = measured.knee()
    if at_knee is None:
        raise Refused(["the number of slots is not known, and there are no steps of users to see"])
    return round(at_knee.level)


def _ttft_bound(slo: Slo) -> float | None:
    return min((b.limit for b in slo.bounds if b.quantity == "ttft"), default=None)


def _set(value: dict[str, Any], dotted: str, item: float | int) -> None:
    *path, name = dotted.split(".")
    for each in path:
        value = value.setdefault(each, {})
    value[name] = item
