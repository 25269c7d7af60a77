"""Policies side by side, their intervals, and the search for the cheapest settings."""

import math
from collections.abc import Iterable
from pathlib import Path

import pytest

from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate import plot, startup
from serve_app.capacity.simulate.compare import (
    autoscaled,
    baselines,
    curves,
    evaluate,
    fixed,
    started_for,
)
from serve_app.capacity.simulate.intervals import interval
from serve_app.capacity.simulate.policies import Demand, demand
from serve_app.capacity.simulate.run import SimulatedService, simulate
from serve_app.capacity.simulate.startup import FixedStartup
from serve_app.capacity.simulate.tune import Search, Trial, tuned_options
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.lengths import Fixed, Independent
from serve_app.capacity.workload.requests import Synthetic, WorkloadRequest
from serve_app.capacity.workload.shapes import Shape
from serve_app.capacity.workload.text import WorkloadError
from serve_app.scaling_settings import Autoscaling

SLO = Slo.parse("ttft_p95=1s")
SECONDS = 700.0
SHAPE = Shape.parse("points:0s=2,280s=2,300s=14,400s=14,420s=2,700s=2")
SERVICE = SimulatedService(
    ServiceModel(0.0, 100.0),
    slots=4,
    queue=100,
    scaling=Autoscaling(max_replicas=8, downscale_delay_s=30),
    startup=FixedStartup(5),
)


def load(seed: int) -> Iterable[WorkloadRequest]:
    return Synthetic(SHAPE, Independent(Fixed(1), Fixed(100)), seed)


def test_every_policy_is_played_the_same_load() -> None:
    """The oracle does best among those that pay as little; a mean's worth of replicas fails."""
    needed = demand(load(0), SERVICE.model, SERVICE.slots)
    scores = {
        candidate.name.partition(" (")[0]: evaluate(candidate, load, range(1), SLO, SECONDS)
        for candidate in baselines(SERVICE, needed)
    }
    assert scores["oracle x1.25"].met == 1
    assert scores["static: mean"].met == 0
    oracle, peak = scores["oracle x1.25"], scores["static: peak"]
    assert oracle.replica_hours.mean < 0.9 * peak.replica_hours.mean
    assert oracle.attainment.mean > scores["Ray's defaults"].attainment.mean


def test_a_static_fleet_costs_its_size() -> None:
    """From the first second to the last, within its bounds."""
    score = evaluate(fixed("static", SERVICE, 2.2), load, range(1), SLO, SECONDS)
    assert score.replica_hours.mean == pytest.approx(3 * SECONDS / 3600, rel=0.03)
    assert (score.name, score.peak_replicas) == ("static (3)", 3)
    assert fixed("static", SERVICE, 99).service.scaling.max_replicas == 8


def test_curves_cover_each_family() -> None:
    """More than one setting of each."""
    families = [candidate.family for candidate in curves(SERVICE, Demand(10.0, (1.0, 3.0)))]
    assert {families.count(family) for family in set(families)} == {4, 5, 6}


def test_a_load_that_begins_high_finds_its_replicas() -> None:
    """Those of its first minute, within the bounds."""
    busy = started_for(SERVICE, Demand(10.0, (2.4,) * 6 + (9.0,) * 6))
    assert busy.scaling.initial_replicas == 3
    assert started_for(SERVICE, Demand(10.0, (99.0,))).scaling.initial_replicas == 8
    assert started_for(SERVICE, Demand(10.0, ())).scaling.initial_replicas == 1


@pytest.mark.parametrize(
    ("values", "half"),
    [([1.0, 3.0], 12.706), ([1.0, 2.0, 3.0], 4.303 / math.sqrt(3)), ([5.0] * 4, 0.0)],
)
def test_intervals_are_students(values: list[float], half: float) -> None:
    """By the tables: 95 % on both sides."""
    estimate = interval(values)
    assert estimate.high - estimate.mean == pytest.approx(half, rel=1e-3)
    assert estimate.mean - estimate.low == pytest.approx(half, rel=1e-3)


def test_students_factor_beyond_the_table() -> None:
    """2.045 for thirty values."""
    values = [float(i % 2) for i in range(30)]
    estimate = interval(values)
    deviation = math.sqrt(sum((v - 0.5) ** 2 for v in values) / 29 / 30)
    assert (estimate.high - estimate.mean) / deviation == pytest.approx(2.045, rel=5e-3)
    assert f"{interval([2.0]):.1f}" == "2.0"


def test_the_search_finds_cheaper_settings_that_meet_the_slo() -> None:
    """Cheaper than a fleet for the peak; no trial is run twice."""
    tried: list[Trial] = []
    grid = {"target_ongoing_requests": (0.4, 0.7, 1.0), "downscale_delay_s": (15.0, 60.0)}
    search = Search(SERVICE, load, (0,), SLO, SECONDS, grid, done=tried.append)
    best = search.run()
    peak = evaluate(fixed("peak", SERVICE, 4), load, (0,), SLO, SECONDS)
    assert best.score.met == peak.met == 1
    assert best.score.replica_hours.mean < peak.replica_hours.mean
    assert len(tried) == len({tuple(sorted(trial.settings.items())) for trial in tried})
    assert best.rank == min(trial.rank for trial in tried)


def test_the_search_also_begins_with_enough_for_the_peak() -> None:
    """Where it is cheapest to keep them, no turn of one dial leads there from fewer."""
    tried: list[Trial] = []
    grid = {"target_ongoing_requests": (0.4, 1.5), "min_replicas": (1.0, 2.0)}
    best = Search(SERVICE, load, (0,), SLO, SECONDS, grid, enough=4, done=tried.append).run()
    kept = {**grid, "target_ongoing_requests": 1.5, "min_replicas": 4}
    assert kept in [trial.settings for trial in tried]
    assert best.rank == min(trial.rank for trial in tried)


def test_a_search_that_ends_hopeless_trials_early_finds_the_same() -> None:
    """Some trials end early, and none of them could have been the best."""

    class Patient(Search):
        def _cutoff(self, *_: object) -> None:
            return None

    shape = Shape.parse("points:0s=4,100s=4,120s=14,200s=14")
    lengths = Independent(Fixed(1), Fixed(100))
    grid = {"target_ongoing_requests": (0.4, 1.5), "min_replicas": (4.0, 6.0)}
    searches = [
        kind(SERVICE, lambda seed: Synthetic(shape, lengths, seed), (0,), SLO, 200.0, grid)
        for kind in (Search, Patient)
    ]
    quick, patient = (search.run() for search in searches)
    assert quick == patient
    assert searches[0].cut
    assert len(searches[1].trials) == len(searches[0].trials) + len(searches[0].cut)


def test_settings_of_the_search_are_those_of_the_pool() -> None:
    """A target is a share of the slots, never above what a replica holds."""
    scaling = tuned_options(
        SERVICE, {"target_ongoing_requests": 0.5, "min_replicas": 99, "look_back_period_s": 10}
    )
    assert Autoscaling.model_validate({"max_replicas": 8, **scaling}).target_ongoing_requests == 2.0
    assert scaling["min_replicas"] == 8
    assert scaling["metrics_interval_s"] == 2.0


@pytest.mark.parametrize(
    ("text", "usual"), [("30s", 30), ("uniform:min=20s,max=1m", 60), ("2m", 120)]
)
def test_start_up_times_are_read(text: str, usual: float) -> None:
    """An oracle reckons with the longest."""
    assert startup.parse_startup(text).usual == usual


def test_old_names_of_a_start_up_time_are_read_with_a_warning() -> None:
    """Scripts of version 0.1 go on working."""
    with pytest.warns(FutureWarning, match=r"least= is now min=|most= is now max="):
        assert startup.parse_startup("uniform:least=20s,most=1m") == startup.UniformStartup(20, 60)


@pytest.mark.parametrize("text", ["soon", "uniform:min=3s,max=1s", "lognormal:median=3s"])
def test_what_is_no_start_up_time_is_refused(text: str) -> None:
    """With the forms that would do."""
    with pytest.raises(WorkloadError):
        startup.parse_startup(text)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    """Of a curve and of one simulation."""
    given = autoscaled("given", "given", SERVICE)
    score = evaluate(given, load, range(2), SLO, 60.0)
    plot.curve([score], "a title", tmp_path / "curve.png")
    result = simulate(load(0), SERVICE, given.policy(), 0, 60.0)
    plot.over_time(result, "a title", tmp_path / "time.png")
    for name in ("curve.png", "time.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
