"""Settings and policies side by side: SLO attainment against replica-hours, over several seeds."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.intervals import Interval, interval
from serve_app.capacity.simulate.policies import Demand, Static, TargetPolicy, oracle
from serve_app.capacity.simulate.policy import RayPolicy
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.run import SimulatedService, simulate
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.scaling_settings import Autoscaling

# Makes requests from a seed; equal seeds give equal requests.
Workload = Callable[[int], Iterable[WorkloadRequest]]
# Defaults of Ray 2.60 (ray.serve.config.AutoscalingConfig).
RAY_DEFAULTS = {
    "target_ongoing_requests": 2.0,
    "upscale_delay_s": 30.0,
    "downscale_delay_s": 600.0,
    "downscale_to_zero_delay_s": None,
    "look_back_period_s": 30.0,
    "metrics_interval_s": 10.0,
}


@dataclass(frozen=True)
class Candidate:
    """A service with a policy. `family`: its curve in plots. `policy` makes one for each run."""

    name: str
    family: str
    service: SimulatedService
    policy: Callable[[], TargetPolicy]


@dataclass(frozen=True, slots=True)
class Score:
    """Figures over all seeds. `met`: the share of seeds in which every bound was met."""

    name: str
    family: str
    attainment: Interval
    replica_hours: Interval
    met: float
    ttft_p50_s: float
    ttft_p99_s: float
    peak_replicas: int


def evaluate(
    candidate: Candidate, workload: Workload, seeds: Sequence[int], slo: Slo, seconds: float
) -> Score:
    """Simulate a candidate under all seeds; equal seeds give all candidates equal requests."""
    results = [
        simulate(workload(seed), candidate.service, candidate.policy(), seed, seconds)
        for seed in seeds
    ]
    return score(candidate, results, slo)


def score(candidate: Candidate, results: Sequence[Result], slo: Slo) -> Score:
    return Score(
        name=candidate.name,
        family=candidate.family,
        attainment=interval([result.attainment(slo) for result in results]),
        replica_hours=interval([result.replica_hours for result in results]),
        met=sum(result.meets(slo) for result in results) / len(results),
        ttft_p50_s=_mean(result.quantile("ttft", 0.5) for result in results),
        ttft_p99_s=_mean(result.quantile("ttft", 0.99) for result in results),
        peak_replicas=max(sample.billed for result in results for sample in result.samples),
    )


def autoscaled(name: str, family: str, service: SimulatedService) -> Candidate:
    """Make a candidate of Ray's policy with the service's settings."""
    options = dict(service.scaling.serve_options)
    options["target_ongoing_requests"] = service.target_ongoing_requests
    return Candidate(name, family, service, lambda: RayPolicy(options))


def with_scaling(service: SimulatedService, **changes: object) -> SimulatedService:
    scaling = Autoscaling.model_validate(service.scaling.model_dump(exclude_unset=True) | changes)
    return replace(service, scaling=scaling)


def baselines(service: SimulatedService, needed: Demand) -> Iterator[Candidate]:
    """Yield the baselines of a comparison, within the service's bounds on replicas."""
    yield fixed("static: peak", service, needed.peak)
    yield fixed("static: mean", service, needed.mean)
    yield autoscaled("Ray's defaults", "Ray's defaults", with_scaling(service, **RAY_DEFAULTS))
    yield foreseen(service, needed, 1.25)


def curves(service: SimulatedService, needed: Demand) -> Iterator[Candidate]:
    """Yield families that vary one parameter: replicas, target per replica, headroom."""
    for share in (0.4, 0.6, 0.8, 1.0, 1.2, 1.5):
        yield fixed(f"static x{share:g}", service, share * needed.peak)
    for share in (0.4, 0.55, 0.7, 0.85, 1.0):
        target = share * service.slots
        changed = with_scaling(service, target_ongoing_requests=target)
        yield autoscaled(f"target {target:.3g}", "these settings, other targets", changed)
    for headroom in (0.8, 1.0, 1.5, 2.0):
        yield foreseen(service, needed, headroom)


def fixed(name: str, service: SimulatedService, replicas: float) -> Candidate:
    """Make a candidate of a constant number of replicas, ready from the start."""
    max_replicas = service.scaling.max_replicas
    count = max(1, min(max_replicas, math.ceil(replicas - 1e-9)))
    constant = with_scaling(
        service, min_replicas=count, max_replicas=max_replicas, initial_replicas=count
    )
    return Candidate(f"{name} ({count})", "static", constant, lambda: Static(count))


def foreseen(service: SimulatedService, needed: Demand, headroom: float) -> Candidate:
    """Make a candidate of an oracle that starts replicas before they are needed."""
    max_replicas = service.scaling.max_replicas
    schedule = oracle(needed, service.startup.usual, headroom)
    schedule = replace(schedule, replicas=tuple(min(max_replicas, n) for n in schedule.replicas))
    first = schedule.replicas[0] if schedule.replicas else 1
    warm = with_scaling(service, min_replicas=min(1, first), initial_replicas=first)
    return Candidate(f"oracle x{headroom:g}", "oracle", warm, lambda: schedule)


def started_for(service: SimulatedService, needed: Demand) -> SimulatedService:
    """Set the initial replicas to the mean need of the load's first minute."""
    first = [
        needed_now for step, needed_now in enumerate(needed.replicas) if step * needed.step_s < 60
    ]
    replicas = math.ceil(sum(first) / len(first)) if first else 0
    scaling = service.scaling
    initial = max(scaling.min_replicas, min(scaling.max_replicas, replicas))
    return with_scaling(service, initial_replicas=initial)


def _mean(values: Iterable[float]) -> float:
    return interval(list(values)).mean
