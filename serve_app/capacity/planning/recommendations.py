"""Settings of a pool with the reason for each. Pure functions."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.report import SweepReport
from serve_app.capacity.sweep.steps import StepKind, SweepStep
from serve_app.pool_settings import INGRESS_SURPLUS

# The planned share of a replica's limit. The rest is for fluctuations, and for growth while another
# replica starts.
_HEADROOM = 0.85
# A sidecar is not part of a Serve config.
_SIDECAR = "If Ollama runs as a sidecar, its OLLAMA_NUM_PARALLEL must be the same."


@dataclass(frozen=True, slots=True)
class PlannedDemand:
    """Arrivals per second at the peak and at quiet times; seconds of a cold start.

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
class Recommendation:
    """One setting: its place (`args` or `deployment`), dotted name, value and reason."""

    place: str
    name: str
    value: float | int
    because: str


def slot_recommendations(
    best: SweepReport, usable: Sequence[SweepReport], slots: int
) -> Iterator[Recommendation]:
    """Recommend the number of slots, with the figures of the others that were tried."""
    others = [report for report in usable if report is not best and report.measured.slots]
    sentence = f"One replica made {best.max_tokens_per_s:.0f} tokens/s at most"
    if others:
        rates = ", ".join(f"{other.rate:.3g} with {other.measured.slots}" for other in others)
        sentence += (
            f" and met the SLO up to {best.rate:.3g} requests/s, the most of all values "
            f"tried ({rates})"
        )
    yield Recommendation("args", "engine.slots", slots, f"{sentence}. {_SIDECAR}")


def request_recommendations(
    best: SweepReport, largest: SweepStep, slots: int, demand: PlannedDemand
) -> Iterator[Recommendation]:
    """Recommend queue, bounds and target for the requests of a replica."""
    bound = _ttft_bound(best.slo)
    queue = max(1, math.floor(largest.completed_per_s * bound)) if bound else 2 * slots
    admitted = slots + queue
    rate = _HEADROOM * largest.completed_per_s
    target = min(ongoing_at(best.measured.steps, rate), admitted - 0.5)
    yield _queue(queue, largest, slots, bound)
    yield _max_ongoing(admitted, slots, target, demand)
    yield _max_queued(_replicas(largest, demand) * rate, largest, bound)
    yield Recommendation(
        "deployment",
        "autoscaling_config.target_ongoing_requests",
        round(target, 2),
        f"At {rate:.3g} requests/s, {_HEADROOM:.0%} of the most that met the SLO, one replica "
        f"holds {target:.3g} requests on average (between the measured steps). It is below "
        "max_ongoing_requests, else Ray would never see the need.",
    )


def speed_recommendations(
    best: SweepReport, largest: SweepStep, demand: PlannedDemand
) -> Iterator[Recommendation]:
    """Recommend the speeds to expect until the service has measured its own."""
    rate = best.fit.model.prefill_tokens_per_s if best.fit else 0.0
    if rate and not demand.direct:
        yield Recommendation(
            "args",
            "engine.expected_prefill_tokens_per_s",
            round(rate),
            f"One replica read prompts at {rate:.0f} tokens/s: the routing `affinity` assumes this "
            "until it has measured a prompt.",
        )
    waited_s = best.wait.measured_s if best.wait else 0.0
    held_s = max(0.01, largest.e2e_s - waited_s)
    yield Recommendation(
        "args",
        "autoscaling.expected_request_s",
        round(held_s, 2),
        f"A request held its slot for {held_s:.3g} s: the routing `affinity` and the scaling "
        "policy `ahead` assume this until one has ended.",
    )


def _queue(queue: int, largest: SweepStep, slots: int, bound: float | None) -> Recommendation:
    reason = (
        f"One replica completes {largest.completed_per_s:.3g} requests/s: requests beyond this "
        f"queue would wait longer than the SLO's {bound:g} s."
        if bound
        else f"Twice the {slots} slots, as the SLO does not bound the wait."
    )
    return Recommendation("args", "queue", queue, reason)


def _max_ongoing(admitted: int, slots: int, target: float, demand: PlannedDemand) -> Recommendation:
    if demand.direct:
        maximum = admitted + INGRESS_SURPLUS
        reason = (
            f"Slots and queue, {admitted}, and {INGRESS_SURPLUS} more, so that the service's own "
            "queue decides which requests wait and which get 503."
        )
    else:
        maximum = min(admitted, max(slots + 1, math.floor(target) + 1))
        reason = (
            f"The {slots} slots and one request that waits, or as many as the target needs; the "
            "others wait in the gateway for any replica."
        )
    return Recommendation("deployment", "max_ongoing_requests", maximum, reason)


def _max_queued(per_s: float, largest: SweepStep, bound: float | None) -> Recommendation:
    """Recommend the router's queue for replicas that complete `per_s` requests together."""
    maximum = max(1, math.ceil(per_s * (bound or largest.e2e_s)))
    wait = f"the SLO's {bound:g} s" if bound else "one answer's time"
    reason = (
        f"Requests that all replicas at the peak begin within {wait}; later ones are refused at "
        "once."
    )
    return Recommendation("deployment", "max_queued_requests", maximum, reason)


def replica_recommendations(largest: SweepStep, demand: PlannedDemand) -> Iterator[Recommendation]:
    """Recommend the minimum and maximum of replicas."""
    rate = _HEADROOM * largest.completed_per_s
    max_replicas = _replicas(largest, demand)
    capacity = f"one replica serves {rate:.3g} requests/s ({_HEADROOM:.0%} of what met the SLO)"
    yield Recommendation(
        "deployment",
        "autoscaling_config.max_replicas",
        max_replicas,
        f"The peak of {demand.peak:g} requests/s: {capacity}"
        + (f", {demand.spare} to spare." if demand.spare else "."),
    )
    if demand.base is None:
        min_replicas = 0 if demand.to_zero else 1
        reason = "The load at quiet times is not given."
    else:
        min_replicas = math.ceil(demand.base / rate) if demand.base else int(not demand.to_zero)
        reason = f"Quiet times have {demand.base:g} requests/s: {capacity}."
    min_replicas = min(max_replicas, min_replicas)
    yield Recommendation("deployment", "autoscaling_config.min_replicas", min_replicas, reason)
    yield Recommendation(
        "deployment",
        "autoscaling_config.initial_replicas",
        max(1, min_replicas),
        "As many as at quiet times; the autoscaler adds more.",
    )


def time_recommendations(largest: SweepStep, demand: PlannedDemand) -> Iterator[Recommendation]:
    """Recommend delays, which weigh cold starts against flapping; none without `startup_s`."""
    if demand.startup_s is None:
        return
    start, answer = demand.startup_s, largest.e2e_s
    look_back = max(2.0, round(answer, 1))
    yield Recommendation(
        "deployment",
        "autoscaling_config.look_back_period_s",
        look_back,
        f"One answer takes {answer:.3g} s: a shorter window measures noise, a longer one the past.",
    )
    yield Recommendation(
        "deployment",
        "autoscaling_config.metrics_interval_s",
        max(0.5, round(look_back / 5, 1)),
        "Five reports in a window.",
    )
    yield Recommendation(
        "deployment",
        "autoscaling_config.upscale_delay_s",
        round(min(5.0, start / 10), 1),
        f"A tenth of the {start:.3g} s that a replica takes to start, at most 5 s: the delay adds "
        "to the start, and the window already filters noise.",
    )
    yield Recommendation(
        "deployment",
        "autoscaling_config.downscale_delay_s",
        max(30.0, round(3 * start)),
        f"A replica that is removed and needed again costs {start:.3g} s of start: a lull must "
        "last three times as long.",
    )


def ongoing_at(steps: Sequence[SweepStep], rate: float) -> float:
    """Interpolate the ongoing requests at a rate between the measured steps and zero."""
    known = [(0.0, 0.0)]
    known += sorted((s.offered_per_s, s.ongoing) for s in steps if s.kind is StepKind.RATE)
    for (low, few), (high, many) in pairwise(known):
        if rate <= high:
            return few + (many - few) * (rate - low) / (high - low)
    return known[-1][1]


def _replicas(largest: SweepStep, demand: PlannedDemand) -> int:
    rate = _HEADROOM * largest.completed_per_s
    return max(1, math.ceil(demand.peak / rate - 1e-9) + demand.spare)


def _ttft_bound(slo: Slo) -> float | None:
    return min((b.limit for b in slo.bounds if b.quantity == "ttft"), default=None)
