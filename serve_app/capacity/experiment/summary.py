"""The figures of one run: `summary.json`. Pure functions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from serve_app.capacity.experiment.hindsight import FleetSpec, HindsightCost, hindsight_cost
from serve_app.capacity.experiment.scaling import (
    Rise,
    ScalingResponse,
    changes,
    flaps,
    responses,
    rises,
)
from serve_app.capacity.results.cluster_samples import Sample, replica_seconds
from serve_app.capacity.results.request_records import ClientOutcome, Record, Run
from serve_app.capacity.results.slo import BoundResult, Slo, attainment, goodput
from serve_app.capacity.results.statistics import Summary, summarise
from serve_app.capacity.workload.scenario import Scenario
from serve_app.capacity.workload.shapes import Shape
from serve_app.capacity.workload.text import WorkloadError

# Outcomes that are neither an answer nor a refusal.
_LOST = (
    ClientOutcome.ERROR,
    ClientOutcome.TRUNCATED,
    ClientOutcome.TIMEOUT,
    ClientOutcome.TRANSPORT,
)


@dataclass(frozen=True, slots=True)
class Findings:
    """Figures of one run. Replica-seconds include starts and drains while the run was watched.

    `lost` requests got neither a complete answer nor a refusal; the answers of `truncated` ones
    broke off. Costs are at the price of the scenario.
    """

    title: str
    tool: str
    invalid: tuple[str, ...]
    interrupted: bool
    load_began: float
    load_seconds: float
    watched_seconds: float
    longest_gap_s: float  # between two samples
    latency: Summary
    lost: int
    truncated: int
    refused: int
    slo: str
    slo_findings: tuple[BoundResult, ...]
    slo_attainment: float
    goodput_per_s: float
    responses: tuple[ScalingResponse, ...]
    start_s: float | None  # the median from wanted to running
    peak_running: int
    lowest_after: int
    target_changes: int
    flaps: int
    engine_starts: int
    replica_seconds: float
    hindsight: HindsightCost
    cost: float
    min_cost: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the figures under the names of `summary.json`, some of which are older."""
        figures = asdict(self)
        hindsight, min_cost = figures.pop("hindsight"), figures.pop("min_cost")
        least = {"work": hindsight["work"], "least": hindsight["cheapest"]}
        return figures | {"least": least, "least_cost": min_cost}


def findings(
    scenario: Scenario,
    run: Run,
    records: Sequence[Record],
    samples: Sequence[Sample],
    interrupted: bool = False,
) -> Findings:
    """Compute the figures. Raises ValueError without samples."""
    if not samples:
        raise ValueError("no sample was taken")
    slo, shape = Slo.parse(scenario.slo), shape_of(scenario)
    reactions = tuple(responses(_rises(shape, run), samples, records, slo))
    start_s = _start(reactions)
    used = replica_seconds(samples)
    hindsight = hindsight_cost(
        records, slo, _fleet(scenario, start_s), samples[0].at, samples[-1].at
    )
    outcomes = [record.outcome for record in records]
    price = scenario.price_per_replica_hour / 3600
    return Findings(
        title=scenario.title,
        tool=run.tool,
        invalid=run.invalid,
        interrupted=interrupted,
        load_began=run.began,
        load_seconds=run.seconds,
        watched_seconds=samples[-1].at - samples[0].at,
        longest_gap_s=_longest_gap_s(samples),
        latency=summarise(records, run.seconds),
        lost=sum(outcome in _LOST for outcome in outcomes),
        truncated=outcomes.count(ClientOutcome.TRUNCATED),
        refused=outcomes.count(ClientOutcome.REJECTED),
        slo=scenario.slo,
        slo_findings=tuple(slo.judge(records)),
        slo_attainment=attainment(records, slo),
        goodput_per_s=goodput(records, slo, run.seconds),
        responses=reactions,
        start_s=start_s,
        peak_running=max(sample.running for sample in samples),
        lowest_after=samples[-1].billed,
        target_changes=len(changes(samples)),
        flaps=flaps(samples, shape),
        engine_starts=samples[-1].engine_starts,
        replica_seconds=used,
        hindsight=hindsight,
        cost=used * price,
        min_cost=None if hindsight.cheapest is None else hindsight.cheapest * price,
    )


def _longest_gap_s(samples: Sequence[Sample]) -> float:
    return max((after.at - before.at for before, after in pairwise(samples)), default=0.0)


def shape_of(scenario: Scenario) -> Shape | None:
    """Return the load's level over time; None if a trace is replayed."""
    try:
        return Shape.parse(str(scenario.load.get("shape", "")))
    except WorkloadError:
        return None


def _rises(shape: Shape | None, run: Run) -> list[Rise]:
    """Return the rises in Unix seconds. A load without a rise counts as one step up."""
    growths = rises(shape) if shape else []
    if not growths:
        return [Rise(run.began, run.began, 0.0, shape.peak if shape else 0.0)]
    return [
        Rise(run.began + rise.begin, run.began + rise.end, rise.low, rise.high) for rise in growths
    ]


def _start(reactions: Sequence[ScalingResponse]) -> float | None:
    took = [
        step.running_s - step.wanted_s
        for response in reactions
        for step in response.steps
        if step.running_s is not None
    ]
    return median(took) if took else None


def _fleet(scenario: Scenario, start_s: float | None) -> FleetSpec:
    pool = scenario.pool
    return FleetSpec(pool.engine.slots, start_s or 0.0, pool.autoscaling.min_replicas)
