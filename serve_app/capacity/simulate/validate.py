"""Measure the error of the simulation by replaying the requests of a live experiment.

A folder of an experiment holds one run, or several of the same load as `run-1`, `run-2`, …; each
has `scenario.json`, `run.json`, `requests.jsonl` and `samples.jsonl`. Inputs of the simulation are
the settings, the recorded arrivals and lengths, the target at the begin of the load, and the times
of replicas to start, to get their first request, and to stop, which depend on the machine. The
compared figures are not: replicas over time, TTFT, replica-seconds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

from serve_app.capacity.simulate.ahead import AheadPolicy
from serve_app.capacity.simulate.live import Live, ValidationError, read_live
from serve_app.capacity.simulate.policies import TargetPolicy
from serve_app.capacity.simulate.policy import RayPolicy
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.run import SimulatedService, simulate
from serve_app.capacity.simulate.scene import service_of
from serve_app.capacity.simulate.startup import ReplayedStartup
from serve_app.capacity.workload.scenario import SCENARIO, Scenario, ScenarioError
from serve_app.pool_settings import Pool
from serve_app.scaling.memory import Aim

# Allowed error as a share of the live value; a larger spread of the live runs is allowed as well.
ALLOWED = 0.15
ENOUGH_RUNS = 3


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """A figure with the `error` of the simulation and the `spread` of the live runs.

    Both are shares of `live`.

    `spread` is the largest distance of a live run from their median.
    """

    name: str
    unit: str
    live: float
    simulated: float
    error: float
    spread: float

    @property
    def holds(self) -> bool:
        return self.error <= max(ALLOWED, self.spread)


@dataclass(frozen=True, slots=True)
class Validation:
    runs: int
    seeds: int
    startups: tuple[str, ...]
    figures: tuple[ComparedFigure, ...]

    @property
    def holds(self) -> bool:
        return self.runs >= ENOUGH_RUNS and all(figure.holds for figure in self.figures)


def validate(folder: Path, seeds: Sequence[int], done: Callable[[], object]) -> Validation:
    """Replay a folder under some seeds. Raises ValidationError.

    `done` is called after each simulation.
    """
    folders = sorted(folder.glob("run-*")) or [folder]
    runs = [read_live(folder) for folder in folders]
    scenario = _scenario(folders[0])
    pool = scenario.pool
    begin, end = max(run.begin_s for run in runs), min(run.end_s for run in runs)
    results = []
    for seed in seeds:
        # Requests and start-up times of the runs in turn
        run = runs[seed % len(runs)]
        requests, service = run.requests(begin), _service(scenario, run)
        policy = _policy(pool, service)
        results.append(simulate(requests, service, policy, seed, end - begin))
        done()
    startups = tuple(str(_service(scenario, run).startup) for run in runs)
    return Validation(len(runs), len(results), startups, tuple(_figures(runs, results, begin, end)))


def _policy(pool: Pool, service: SimulatedService) -> TargetPolicy:
    """Return the policy that the live service had, from its beginning."""
    scaling = service.scaling
    if scaling.policy == "ahead":
        aim = Aim(scaling.max_wait_s, scaling.quantile, start_s=scaling.expected_start_s)
        return AheadPolicy(aim, scaling, slots=service.slots)
    options = dict(scaling.serve_options)
    options["target_ongoing_requests"] = pool.target_ongoing_requests
    return RayPolicy(options)


def _scenario(folder: Path) -> Scenario:
    try:
        return Scenario.read(str(folder / SCENARIO))
    except ScenarioError as exc:
        raise ValidationError(f"{folder} has no readable {SCENARIO}: {exc}") from exc


def _service(scenario: Scenario, run: Live) -> SimulatedService:
    if scenario.pool.engine.kind != "simulated":
        raise ValidationError(
            f"the engine was {scenario.pool.engine.kind}, whose speed is not in the settings; "
            "validate with runs of the simulated engine"
        )
    declared = service_of(scenario)
    initial = max(declared.scaling.min_replicas, run.target_at_load)
    first, drains, join_s = run.samples[0], run.drain_times(), run.join_time()
    # The simulation begins when these replicas run.
    starts = run.start_times()[max(0, initial - first.running - first.starting) :]
    return replace(
        declared,
        model=replace(declared.model, overhead_s=_overhead(declared, run)),
        scaling=declared.scaling.model_copy(update={"initial_replicas": initial}),
        startup=ReplayedStartup(tuple(starts)) if starts else declared.startup,
        drain_s=min(drains, default=declared.drain_s),
        join_s=declared.joins_s if join_s is None else max(join_s, declared.joins_s),
    )


def _overhead(service: SimulatedService, run: Live) -> float:
    """Return the median time of answers without a wait besides their tokens.

    It is the time of the path through the service on that machine.
    """
    model = service.model
    rests = [
        record.ttft - model.prefill_s(record.prompt_tokens) - model.token_s()
        for record in run.unhindered(service.slots)
        if record.ttft is not None and record.prompt_tokens
    ]
    return max(0.0, median(rests)) if rests else 0.0


def _figures(
    runs: Sequence[Live], results: Sequence[Result], begin: float, end: float
) -> "list[ComparedFigure]":
    grid = [begin + i for i in range(int(end - begin))]
    live = [[run.running(at) for at in grid] for run in runs]
    simulated = [[_simulated(result, at - begin) for at in grid] for result in results]
    return [
        _over_time(live, simulated),
        *(_ttft(runs, results, name, q) for name, q in (("p50", 0.5), ("p99", 0.99))),
        _figure(
            "replica-seconds",
            "s",
            [run.replica_seconds(begin, end) for run in runs],
            [result.replica_seconds for result in results],
        ),
    ]


def _ttft(runs: Sequence[Live], results: Sequence[Result], name: str, q: float) -> ComparedFigure:
    return _figure(
        f"TTFT {name}", "s", [run.ttft(q) for run in runs], [r.quantile("ttft", q) for r in results]
    )


def _figure(
    name: str, unit: str, live: Sequence[float], simulated: Sequence[float]
) -> ComparedFigure:
    middle, simulated_value = median(live), median(simulated)
    if not middle:
        return ComparedFigure(
            name, unit, middle, simulated_value, math.inf if simulated_value else 0.0, 0.0
        )
    spread = max(abs(value - middle) for value in live) / middle
    return ComparedFigure(
        name, unit, middle, simulated_value, abs(simulated_value - middle) / middle, spread
    )


def _over_time(live: Sequence[Sequence[int]], simulated: Sequence[Sequence[int]]) -> ComparedFigure:
    """Compare running replicas by their mean absolute difference over their mean."""
    middle = [median(column) for column in zip(*live, strict=True)]
    simulated_value = [median(column) for column in zip(*simulated, strict=True)]
    mean = fmean(middle)
    spread = max(_distance(run, middle) for run in live) / mean
    return ComparedFigure(
        "replicas over time",
        "",
        mean,
        fmean(simulated_value),
        _distance(simulated_value, middle) / mean,
        spread,
    )


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return fmean(abs(a - b) for a, b in zip(one, other, strict=True))


def _simulated(result: Result, at: float) -> int:
    """Return the replicas at a second; samples are one second apart, the first after one."""
    return result.samples[max(0, min(len(result.samples), int(at)) - 1)].running
