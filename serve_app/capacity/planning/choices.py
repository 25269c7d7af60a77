"""The settings of a pool, each with the sentence that says why. Pure functions."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.measured import Measured
from serve_app.capacity.sweep.steps import Kind, Step

# The share of what one replica can do that is planned for: the rest is for chance and for growth
# while another replica starts.
_HEADROOM = 0.85
# A sidecar is no part of a Serve config.
_SIDECAR = "Where Ollama runs as a sidecar, its OLLAMA_NUM_PARALLEL must be the same."
# Serve's bound lies above ours where the pool is the ingress, so that our own 503 says so.
_ABOVE = 4


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


def slot_choices(
    best: Measured, measured: Sequence[Measured], slots: int, slo: Slo
) -> Iterator[Choice]:
    others = [each for each in measured if each is not best and each.slots]
    tokens = best.best_tokens_per_s()
    sentence = f"One replica made {tokens:.0f} tokens/s at most"
    if others:
        rates = ", ".join(f"{rate_of(each, slo):.3g} with {each.slots}" for each in others)
        sentence += (
            f" and met the SLO up to {rate_of(best, slo):.3g} requests/s, the most of all values "
            f"tried ({rates})"
        )
    yield Choice("args", "engine.slots", slots, f"{sentence}. {_SIDECAR}")


def request_choices(
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
        f"At {rate:.3g} requests/s, {_HEADROOM:.0%} of the most that met the SLO, one replica "
        f"holds {target:.3g} requests on average (between the measured steps). It is below "
        "max_ongoing_requests, else Ray would never see the need.",
    )


def replica_choices(found: Step, wanted: Wanted) -> Iterator[Choice]:
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


def time_choices(found: Step, wanted: Wanted) -> Iterator[Choice]:
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


def rate_of(measured: Measured, slo: Slo) -> float:
    found = measured.largest(slo)
    return found.completed_per_s if found else 0.0


def _replicas(found: Step, wanted: Wanted) -> int:
    rate = _HEADROOM * found.completed_per_s
    return max(1, math.ceil(wanted.peak / rate - 1e-9) + wanted.spare)


def _ttft_bound(slo: Slo) -> float | None:
    return min((b.limit for b in slo.bounds if b.quantity == "ttft"), default=None)
